//! Settings and state as sorted lines of text: what fingerprints, digests and comparisons work on.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::value::readable_float;
use super::{Class, Config, class_of};

/// One run-class value that two configs do not share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Dotted path; parts of `model.blocks` are counted from 0: `model.blocks.8.units`.
    pub key: String,
    /// As the first config has it.
    pub mine: String,
    /// As the other config has it.
    pub theirs: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {} here and {} there", self.key, self.mine, self.theirs)
    }
}

impl Config {
    /// SHA-256, in hex, over every value of class run: equal fingerprints mean equal results (on
    /// one dataset, build and numeric kind). Paths, limits and thread counts do not enter.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for (key, value) in self.run_leaves() {
            hash.update(line(&key, &value));
        }
        crate::hex(&hash.finalize())
    }

    /// Every value of class run that `self` and `other` do not share, in order of the keys.
    pub fn run_differences(&self, other: &Self) -> Vec<Difference> {
        let (mine, theirs) = (self.run_leaves(), other.run_leaves());
        let keys: std::collections::BTreeSet<&String> = mine.keys().chain(theirs.keys()).collect();
        let differs = |key: &&String| mine.get(*key) != theirs.get(*key);
        let text = |value: Option<&Value>| value.map_or_else(|| "absent".into(), readable);
        keys.into_iter()
            .filter(differs)
            .map(|key| Difference {
                key: key.clone(),
                mine: text(mine.get(key)),
                theirs: text(theirs.get(key)),
            })
            .collect()
    }

    fn run_leaves(&self) -> BTreeMap<String, Value> {
        let mut leaves = leaves(self);
        leaves.retain(|path, _| class_of(path) == Class::Run);
        leaves
    }
}

/// The values inside `value` by dotted path; elements of a list are counted from 0.
pub(crate) fn leaves(value: &impl Serialize) -> BTreeMap<String, Value> {
    let value = serde_json::to_value(value).expect("plain data always becomes JSON");
    let mut leaves = BTreeMap::new();
    descend(String::new(), value, &mut leaves);
    leaves
}

/// `path = value` and a newline, with floats as the bits of their f64.
pub(crate) fn line(path: &str, value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().expect("it is one");
            format!("{path} = f64:{:016x}\n", float.to_bits())
        }
        other => format!("{path} = {other}\n"),
    }
}

fn readable(value: &Value) -> String {
    match value.as_f64().filter(|_| value.is_f64()) {
        Some(float) => readable_float(float),
        None => value.to_string(),
    }
}

fn descend(path: String, value: Value, leaves: &mut BTreeMap<String, Value>) {
    let below = |name: &str| match path.is_empty() {
        true => name.to_owned(),
        false => format!("{path}.{name}"),
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                descend(below(&name), value, leaves);
            }
        }
        Value::Array(elements) if !elements.is_empty() => {
            for (index, value) in elements.into_iter().enumerate() {
                descend(below(&index.to_string()), value, leaves);
            }
        }
        leaf => drop(leaves.insert(path, leaf)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Block;

    #[test]
    fn only_run_keys_enter_the_fingerprint() {
        let config = Config::default();
        let of = |change: &dyn Fn(&mut Config)| {
            let mut other = config.clone();
            change(&mut other);
            other.fingerprint()
        };
        assert_eq!(of(&|_| ()), config.fingerprint());
        assert_eq!(of(&|c| c.threads = 7), config.fingerprint());
        assert_eq!(of(&|c| c.max_steps = 7), config.fingerprint());
        assert_eq!(of(&|c| c.run_dir = "elsewhere".into()), config.fingerprint());
        assert_eq!(of(&|c| c.cluster.push_window = 7), config.fingerprint());
        assert_ne!(of(&|c| c.seed = 7), config.fingerprint());
        assert_ne!(of(&|c| c.optimizer.learning_rate = 2e-3), config.fingerprint());
        assert_ne!(of(&|c| c.model.blocks.swap(1, 3)), config.fingerprint());
        let next_up = f64::from_bits(config.optimizer.min_delta.to_bits() + 1);
        assert_ne!(of(&|c| c.optimizer.min_delta = next_up), config.fingerprint());
    }

    #[test]
    fn differences_name_the_key_and_both_values() {
        let (mut mine, mut theirs) = (Config::default(), Config::default());
        assert_eq!(mine.run_differences(&theirs), []);
        mine.images.contrast_min = 0.3;
        mine.threads = 7;
        theirs.seed = 2;
        if let Block::Dense { units, .. } = &mut theirs.model.blocks[8] {
            *units = 128;
        }
        let texts: Vec<String> =
            mine.run_differences(&theirs).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "images.contrast_min is 0.3 here and 0.2 there",
                "model.blocks.8.units is 256 here and 128 there",
                "seed is 1 here and 2 there",
            ]
        );
    }
}
