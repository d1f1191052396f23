//! What makes a config valid, key by key and together.

use toml::{Table, Value};

use super::value::{get, readable};
use super::{Cluster, Config, Images, Key, blocks, keys};

/// Classes of the network that a model is tried with before its dataset is known.
const CLASSES_MIN: usize = 2;

/// Everything that is wrong with a config; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// One line each: where it comes from, the key, the value, and what it must be.
    pub problems: Vec<String>,
}

/// One thing that is wrong, and the keys that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) keys: Vec<&'static str>,
    pub(super) text: String,
}

impl Config {
    /// Checks all that can be checked without the dataset.
    ///
    /// # Errors
    /// Every key whose value is not allowed, alone or beside another, and what makes no network.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let problems: Vec<_> = self.problems().into_iter().map(|problem| problem.text).collect();
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let Ok(table) = Table::try_from(self) else {
            let (max, seed) = (i64::MAX, self.seed);
            let text = format!("no integer may be above {max}, neither seed = {seed} nor a size");
            return vec![Problem { keys: vec!["seed"], text }];
        };
        let mut problems = Vec::new();
        for key in keys() {
            let value = get(&table, key.name).expect("a config has every key");
            let texts = check(key, value);
            problems.extend(texts.into_iter().map(|text| Problem { keys: vec![key.name], text }));
        }
        if problems.is_empty() {
            problems.extend(self.model_problem());
            problems.extend(self.order_problems());
        }
        problems
    }

    /// What makes no network; `image_size` alone is within its limits by now.
    fn model_problem(&self) -> Option<Problem> {
        let error = self.model.network(CLASSES_MIN).err()?;
        Some(Problem { keys: vec!["model.blocks"], text: error.to_string() })
    }

    /// Pairs of values of which the first may not be above the second.
    fn order_problems(&self) -> impl Iterator<Item = Problem> {
        let Images { short_side, crop_min, crop_max, contrast_min, contrast_max, .. } = self.images;
        let Cluster { heartbeat_interval_ms, heartbeat_timeout_ms, .. } = self.cluster;
        [
            ordered(("images.crop_min", crop_min), ("images.crop_max", crop_max)),
            ordered(("images.crop_max", crop_max), ("images.short_side", short_side)),
            ordered(("images.contrast_min", contrast_min), ("images.contrast_max", contrast_max)),
            ordered(
                ("cluster.heartbeat_interval_ms", heartbeat_interval_ms),
                ("cluster.heartbeat_timeout_ms", heartbeat_timeout_ms),
            ),
        ]
        .into_iter()
        .flatten()
    }
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// What is wrong with `value` for `key`.
pub(super) fn check(key: &Key, value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) if key.value.accepts(value) => blocks::problems(list),
        _ if key.value.accepts(value) => Vec::new(),
        _ => vec![format!("{} = {} must be {}", key.name, readable(value), key.value)],
    }
}

/// A problem when the first of two values is above the second.
fn ordered<T: PartialOrd + std::fmt::Display>(
    (low_key, low): (&'static str, T),
    (high_key, high): (&'static str, T),
) -> Option<Problem> {
    (low > high).then(|| Problem {
        keys: vec![low_key, high_key],
        text: format!(
            "{low_key} = {low} is above {high_key} = {high}: lower the first or raise the second"
        ),
    })
}
