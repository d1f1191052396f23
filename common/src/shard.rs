//! Which part of the vectors a server holds.

use std::fmt;
use std::str::FromStr;

/// Most servers of one run.
const COUNT_MAX: usize = 256;

/// One of the servers that hold the vectors of a run together: a contiguous range each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    /// From 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

impl Shard {
    /// The only one.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Whether it decides for all.
    pub fn is_coordinator(self) -> bool {
        self.index == 0
    }

    /// All of them.
    pub fn all(count: usize) -> impl Iterator<Item = Self> + Clone {
        (0..count).map(move |index| Self { index, count })
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, count)| {
            Some(Self { index: index.parse().ok()?, count: count.parse().ok()? })
        });
        let Some(Self { index, count }) = numbers else {
            return Err("write NUMBER/COUNT, as in 0/2 and 1/2".into());
        };
        match count {
            1..=COUNT_MAX if index < count => Ok(Self { index, count }),
            1..=COUNT_MAX => {
                Err(format!("shards are counted from 0: there is no {index} of {count}"))
            }
            _ => Err(format!("a run has 1 to {COUNT_MAX} shards")),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_counted_from_0() {
        assert_eq!("0/1".parse(), Ok(Shard::WHOLE));
        assert_eq!("2/3".parse(), Ok(Shard { index: 2, count: 3 }));
        for text in ["", "1", "3/3", "4/3", "0/0", "-1/2", "0/257", "1/2/3"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
