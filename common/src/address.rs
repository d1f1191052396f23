//! Where a server is: `host:port` or `unix:PATH`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest path of a Unix socket that every kernel takes, in bytes.
const UNIX_PATH_MAX: usize = 107;

/// An address to listen on or to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// The servers of one run: the coordinator, and after it its followers in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(Vec<Address>);

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address `{text}`: {problem}")]
pub struct AddressError {
    text: String,
    problem: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let fail = |problem: &str| AddressError { text: text.into(), problem: problem.into() };
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.len() {
                0 => Err(fail("no path after unix:")),
                1..=UNIX_PATH_MAX => Ok(Self::Unix(path.into())),
                _ => Err(fail("a socket's path has at most 107 bytes; choose a shorter one")),
            };
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| fail("write host:port, as in 127.0.0.1:50051, or unix:PATH"))?;
        if host.is_empty() {
            return Err(fail("no host before the port"));
        }
        if host.contains(|c: char| c.is_whitespace() || "/?#@".contains(c)) {
            return Err(fail("the host is a name or a number, without blanks or slashes"));
        }
        port.parse::<u16>().map_err(|_| fail("the port is not a number of 0 to 65535"))?;
        Ok(Self::Tcp(text.into()))
    }
}

impl Addresses {
    /// Of the coordinator and its followers.
    pub fn new(coordinator: Address, followers: impl IntoIterator<Item = Address>) -> Self {
        Self(std::iter::once(coordinator).chain(followers).collect())
    }

    /// The server that decides.
    pub fn coordinator(&self) -> &Address {
        &self.0[0]
    }

    /// In the order of the shards.
    pub fn all(&self) -> &[Address] {
        &self.0
    }
}

/// Of one server.
impl From<Address> for Addresses {
    fn from(address: Address) -> Self {
        Self::new(address, [])
    }
}

/// Separated by commas.
impl FromStr for Addresses {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Ok(Self(text.split(',').map(Address::from_str).collect::<Result<_, _>>()?))
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, address) in self.0.iter().enumerate() {
            write!(f, "{}{address}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Address {
    /// As gRPC clients name it.
    pub fn uri(&self) -> String {
        match self {
            Self::Tcp(address) => format!("http://{address}"),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_are_separated_by_commas() {
        let text = "127.0.0.1:50051,unix:/tmp/ps.sock";
        let addresses: Addresses = text.parse().unwrap();
        assert_eq!(addresses.to_string(), text);
        assert_eq!(addresses.coordinator().to_string(), "127.0.0.1:50051");
        assert!("127.0.0.1:50051,".parse::<Addresses>().is_err());
    }

    #[test]
    fn an_address_is_read_and_written_alike() {
        for text in ["127.0.0.1:50051", "[::1]:0", "node-3:50051", "unix:/tmp/ps.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, problem) in [
            ("localhost", "write host:port"),
            (":50051", "no host"),
            ("localhost:70000", "not a number"),
            ("unix:", "no path"),
            (&format!("unix:/{}", "x".repeat(107)), "at most 107 bytes"),
        ] {
            let message = text.parse::<Address>().unwrap_err().to_string();
            assert!(message.contains(problem) && message.contains(text), "{message}");
        }
    }
}
