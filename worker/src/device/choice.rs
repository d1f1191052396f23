//! Which device to compute on, as a person asks for it.

use std::fmt;
use std::str::FromStr;

/// The value of `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Choice {
    /// The best device that is there.
    #[default]
    Auto,
    /// The fast CPU device.
    Cpu,
    /// The plain loops in f32: the specification, for comparisons.
    Plain,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "plain" => Ok(Self::Plain),
            _ => Err(format!("`{text}` is no device: choose auto, cpu or plain")),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Plain => "plain",
        })
    }
}
