//! What a config key is, and all of them.

use std::fmt;
use std::ops::Bound;

use serde::Serialize;
use toml::Value;

use super::{CLUSTER_KEYS, CONFIG_KEYS, IMAGES_KEYS, MODEL_KEYS, OPTIMIZER_KEYS};

/// Largest integer of TOML.
const INTEGER_MAX: u64 = i64::MAX as u64;
/// How much alike two names must be, from 0 to 1, for one to be suggested for the other.
const LIKENESS_MIN: f64 = 0.6;

/// What a change of a key does to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Changes the result: fingerprinted, and fixed for the life of a run.
    Run,
    /// When to end: may change on resume.
    Stop,
    /// Paths, ports, threads, time limits: never changes the result.
    Place,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted path: `optimizer.learning_rate`.
    pub name: &'static str,
    /// What a change of it does.
    pub class: Class,
    /// What it can be.
    pub value: ValueType,
    /// What it means, in a sentence.
    pub doc: &'static str,
}

/// What a key's value can be.
#[derive(Clone, Copy, Debug)]
pub enum ValueType {
    /// `true` or `false`.
    Boolean,
    /// A whole number within limits.
    Integer {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A finite number between bounds.
    Real(Bound<f64>, Bound<f64>),
    /// Text that is not empty.
    Text,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// The list `model.blocks`.
    Blocks,
}

/// Every key, in the order in which `hw2 config` prints them.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    [CONFIG_KEYS, MODEL_KEYS, IMAGES_KEYS, OPTIMIZER_KEYS, CLUSTER_KEYS].into_iter().flatten()
}

/// The key called `name`.
pub fn key(name: &str) -> Option<&'static Key> {
    keys().find(|key| key.name == name)
}

/// The class of the value at `path`, which is a key or lies inside one.
pub(crate) fn class_of(path: &str) -> Class {
    let inside = |key: &&Key| path.strip_prefix(key.name).is_some_and(|rest| rest.starts_with('.'));
    let key = key(path).or_else(|| keys().find(inside));
    key.expect("every value of a config has a key").class
}

/// The name among `names` that is most like `unknown`, as a whole or in its last part.
pub(super) fn nearest<'a>(unknown: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    fn last(name: &str) -> &str {
        name.rsplit('.').next().unwrap_or(name)
    }
    let like = strsim::normalized_damerau_levenshtein;
    let mut best = (LIKENESS_MIN, None);
    for name in names {
        let likeness = like(unknown, name).max(like(last(unknown), last(name)));
        if likeness > best.0 {
            best = (likeness, Some(name));
        }
    }
    best.1
}

/// `; did you mean ...?` with the nearest name, or nothing.
pub(super) fn suggestion<'a>(unknown: &str, names: impl Iterator<Item = &'a str>) -> String {
    nearest(unknown, names).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

pub(super) const fn integer(min: u64, max: u64) -> ValueType {
    ValueType::Integer { min, max }
}

/// Above 0.
pub(super) const POSITIVE: ValueType = ValueType::Real(Bound::Excluded(0.0), Bound::Unbounded);
/// Above 0 as an f32 too.
pub(super) const POSITIVE_F32: ValueType =
    ValueType::Real(Bound::Included(f32::MIN_POSITIVE as f64), Bound::Unbounded);
/// At least 0.
pub(super) const NOT_NEGATIVE: ValueType = ValueType::Real(Bound::Included(0.0), Bound::Unbounded);
/// From 0 to 1, both allowed.
pub(super) const PART: ValueType = ValueType::Real(Bound::Included(0.0), Bound::Included(1.0));
/// From 0 to 1, without 1.
pub(super) const BELOW_ONE: ValueType = ValueType::Real(Bound::Included(0.0), Bound::Excluded(1.0));

pub(super) const fn up_to(max: f64) -> ValueType {
    ValueType::Real(Bound::Included(0.0), Bound::Included(max))
}

impl ValueType {
    /// Whether `value` is one of these.
    pub(super) fn accepts(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Boolean, Value::Boolean(_)) => true,
            (Self::Integer { min, max }, Value::Integer(value)) => {
                u64::try_from(*value).is_ok_and(|value| (*min..=*max).contains(&value))
            }
            (Self::Real(low, high), Value::Float(value)) => within(*low, *high, *value),
            (Self::Real(low, high), Value::Integer(value)) => within(*low, *high, *value as f64),
            (Self::Text, Value::String(value)) => !value.is_empty(),
            (Self::OneOf(words), Value::String(value)) => words.contains(&value.as_str()),
            (Self::Blocks, Value::Array(_)) => true,
            _ => false,
        }
    }

    /// What `text`, from the environment or the command line, means for this type; the text itself,
    /// which is then not accepted, when it means nothing.
    pub(super) fn parse(&self, text: &str) -> Value {
        let value = match self {
            Self::Boolean => text.parse().ok().map(Value::Boolean),
            Self::Integer { .. } => text.parse().ok().map(Value::Integer),
            Self::Real(..) => text.parse().ok().map(Value::Float),
            Self::Text | Self::OneOf(_) => None,
            Self::Blocks => text.parse().ok(),
        };
        value.unwrap_or_else(|| Value::String(text.into()))
    }
}

fn within(low: Bound<f64>, high: Bound<f64>, value: f64) -> bool {
    use std::ops::RangeBounds;
    value.is_finite() && (low, high).contains(&value)
}

/// As in "must be ...".
impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => write!(f, "true or false"),
            Self::Integer { min, max: INTEGER_MAX } => write!(f, "an integer of at least {min}"),
            Self::Integer { min, max } => write!(f, "an integer from {min} to {max}"),
            Self::Real(low, high) => {
                let low = match low {
                    Bound::Included(low) => format!(" of at least {low}"),
                    Bound::Excluded(low) => format!(" above {low}"),
                    Bound::Unbounded => String::new(),
                };
                let high = match high {
                    Bound::Included(high) => format!(" and at most {high}"),
                    Bound::Excluded(high) => format!(" and below {high}"),
                    Bound::Unbounded => String::new(),
                };
                write!(f, "a finite number{low}{high}")
            }
            Self::Text => write!(f, "text that is not empty"),
            Self::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Self::Blocks => write!(f, "a list of blocks ([[model.blocks]])"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, leaves};

    #[test]
    fn keys_and_values_of_the_config_are_the_same() {
        let leaves = leaves(&Config::default());
        for leaf in leaves.keys().filter(|leaf| !leaf.starts_with("model.blocks.")) {
            assert!(key(leaf).is_some(), "{leaf}");
        }
        for key in keys() {
            let name = if key.name == "model.blocks" { "model.blocks.0.kind" } else { key.name };
            assert!(leaves.contains_key(name), "{name}");
            assert!(key.doc.ends_with('.') && !key.doc.contains("  "), "{}", key.doc);
        }
        let names: std::collections::BTreeSet<&str> = keys().map(|key| key.name).collect();
        assert_eq!(names.len(), keys().count());
        assert_eq!(class_of("model.blocks.0.kind"), Class::Run);
        assert_eq!(class_of("max_steps"), Class::Stop);
    }

    #[test]
    fn the_nearest_key_is_suggested_and_nothing_far_away() {
        let suggestion = |unknown| suggestion(unknown, keys().map(|key| key.name));
        assert_eq!(suggestion("batchsize"), "; did you mean `batch_size`?");
        assert_eq!(suggestion("learning_rate"), "; did you mean `optimizer.learning_rate`?");
        assert_eq!(suggestion("optimiser.beta_2"), "; did you mean `optimizer.beta2`?");
        assert_eq!(suggestion("image.short_side"), "; did you mean `images.short_side`?");
        assert_eq!(suggestion("colour"), "");
    }

    #[test]
    fn types_say_what_they_accept() {
        let rate = POSITIVE;
        assert!(rate.accepts(&Value::Float(1e-3)) && rate.accepts(&Value::Integer(1)));
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(!rate.accepts(&Value::Float(wrong)), "{wrong}");
        }
        assert_eq!(rate.to_string(), "a finite number above 0");
        assert_eq!(BELOW_ONE.to_string(), "a finite number of at least 0 and below 1");
        let replicas = integer(1, 65535);
        assert!(!replicas.accepts(&Value::Integer(0)) && !replicas.accepts(&Value::Integer(65536)));
        assert!(!replicas.accepts(&Value::Integer(-1)) && !replicas.accepts(&Value::Float(1.0)));
        assert!(replicas.accepts(&Value::Integer(65535)));
        assert_eq!(replicas.to_string(), "an integer from 1 to 65535");
        assert!(!ValueType::Text.accepts(&Value::String(String::new())));
    }
}
