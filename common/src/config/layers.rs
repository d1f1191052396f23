//! The config as typed, layer over layer, and what comes of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::{Table, Value};

use super::keys::{nearest, suggestion};
use super::validate::{Problem, check};
use super::value::{get, set};
use super::{Config, ConfigError, Key, Resolved, Source, file, key, keys};

/// What every variable of the environment that is ours begins with.
const ENVIRONMENT_PREFIX: &str = "HW2_";

/// Where values come from; a later field wins over an earlier one, and all win over the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// The `[profile.NAME]` of that file to lay over it.
    pub profile: Option<String>,
    /// Variables: `HW2_SEED`, `HW2_OPTIMIZER__LEARNING_RATE`. Others than `HW2_` are passed over.
    pub environment: Vec<(String, String)>,
    /// Command-line flags, the last of equals wins.
    pub flags: Vec<Flag>,
}

/// A command-line flag that sets a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// As it was typed: `--steps`.
    pub name: String,
    /// The key it sets: `max_steps`.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl Flag {
    /// Those that were given: of `--set` and of flags of their own (as typed, key, value), which
    /// come later because they are the more deliberate ones.
    pub fn given(set: &[(String, String)], named: &[(&str, &str, &Option<String>)]) -> Vec<Self> {
        let flag = |name: &str, key: &str, value: &str| Self {
            name: name.into(),
            key: key.into(),
            value: value.into(),
        };
        let set = set.iter().map(|(key, value)| flag("--set", key, value));
        let named = named
            .iter()
            .filter_map(|(name, key, value)| value.as_ref().map(|value| flag(name, key, value)));
        set.chain(named).collect()
    }
}

/// Parses the value of `--set`.
///
/// # Errors
/// It is not `KEY=VALUE`.
pub fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write KEY=VALUE, as in optimizer.learning_rate=0.01".into()),
    }
}

/// A value for a key, not yet checked.
pub(super) struct Setting {
    pub(super) key: &'static Key,
    pub(super) value: Value,
    pub(super) source: Source,
}

/// The environment of this process, for [`Layers::environment`]; what is not UTF-8 with replacement
/// characters.
pub fn environment() -> Vec<(String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

impl Layers {
    /// Reads the file, lays the layers over each other and checks the result.
    ///
    /// # Errors
    /// Everything that is wrong, each with its source: an unreadable file, unknown keys and wrong
    /// values (in profiles that were not chosen, too), what [`Config::validate`] finds.
    pub fn load(&self) -> Result<Resolved, ConfigError> {
        let mut problems = Vec::new();
        let mut settings = defaults();
        settings.extend(self.file_settings(&mut problems));
        settings.extend(self.environment_settings(&mut problems));
        settings.extend(self.flag_settings(&mut problems));
        settings.iter().for_each(|setting| check_setting(setting, &mut problems));
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        let mut table = Table::new();
        let mut sources = BTreeMap::new();
        for Setting { key, value, source } in settings {
            set(&mut table, key.name, value);
            sources.insert(key.name, source);
        }
        let config = Config::deserialize(table).expect("every key has a value of its type");
        let problems: Vec<String> =
            config.problems().iter().map(|problem| with_sources(problem, &sources)).collect();
        match problems.is_empty() {
            true => Ok(Resolved { config, sources }),
            false => Err(ConfigError { problems }),
        }
    }

    /// The file's settings, then those of the chosen profile.
    fn file_settings(&self, problems: &mut Vec<String>) -> Vec<Setting> {
        let mut document = self.file.as_deref().map(file::read).unwrap_or_default();
        problems.append(&mut document.problems);
        let mut settings = document.settings;
        if let Some(name) = &self.profile {
            match document.profiles.remove(name) {
                Some(profile) => settings.extend(profile),
                None => problems.push(self.no_such_profile(name, document.profiles.keys())),
            }
        }
        let not_chosen = document.profiles.values().flatten();
        not_chosen.for_each(|setting| check_setting(setting, problems));
        settings
    }

    fn no_such_profile<'a>(&self, name: &str, known: impl Iterator<Item = &'a String>) -> String {
        let Some(path) = &self.file else {
            return format!("profile `{name}` without a config file: give the file that has it");
        };
        let known: Vec<&str> = known.map(String::as_str).collect();
        let there = match known.is_empty() {
            true => format!("are none: write a section [profile.{name}]"),
            false => format!("are {}", known.join(", ")),
        };
        format!("{}: no profile `{name}`; there {there}", path.display())
    }

    fn environment_settings(&self, problems: &mut Vec<String>) -> Vec<Setting> {
        let mut settings = Vec::new();
        for (variable, value) in &self.environment {
            if !variable.starts_with(ENVIRONMENT_PREFIX) || is_kubernetes_link(variable) {
                continue;
            }
            let source = Source::Environment(variable.clone());
            match keys().find(|key| variable_of(key.name) == *variable) {
                Some(key) => settings.push(Setting { key, value: key.value.parse(value), source }),
                None => {
                    let path = variable[ENVIRONMENT_PREFIX.len()..].to_lowercase();
                    let near = nearest(&path.replace("__", "."), keys().map(|key| key.name));
                    let suggestion =
                        near.map(|key| format!("; did you mean {}?", variable_of(key)));
                    let suggestion = suggestion.unwrap_or_default();
                    problems.push(format!("{source}: no key has this variable{suggestion}"));
                }
            }
        }
        settings
    }

    fn flag_settings(&self, problems: &mut Vec<String>) -> Vec<Setting> {
        let mut settings = Vec::new();
        for Flag { name, key: path, value } in &self.flags {
            let source = Source::Flag(name.clone());
            match key(path) {
                Some(key) => settings.push(Setting { key, value: key.value.parse(value), source }),
                None => {
                    let suggestion = suggestion(path, keys().map(|key| key.name));
                    problems.push(format!("{source}: unknown key `{path}`{suggestion}"));
                }
            }
        }
        settings
    }
}

fn defaults() -> Vec<Setting> {
    let table = Table::try_from(Config::default()).expect("a default can be written");
    let setting = |key: &'static Key| Setting {
        key,
        value: get(&table, key.name).expect("a config has every key").clone(),
        source: Source::Default,
    };
    keys().map(setting).collect()
}

fn check_setting(setting: &Setting, problems: &mut Vec<String>) {
    let Setting { key, value, source } = setting;
    problems.extend(check(key, value).iter().map(|problem| format!("{source}: {problem}")));
}

/// The problem with the source of every value that has part in it.
fn with_sources(problem: &Problem, sources: &BTreeMap<&'static str, Source>) -> String {
    let Problem { keys, text } = problem;
    match &keys[..] {
        [key] => format!("{}: {text}", sources[key]),
        keys => {
            let sources = keys.iter().map(|key| format!("{key}: {}", sources[key]));
            format!("{text} ({})", sources.collect::<Vec<_>>().join("; "))
        }
    }
}

fn variable_of(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// Whether Kubernetes put a variable there: for a service `hw2-ps` every pod of its namespace gets
/// `HW2_PS_SERVICE_HOST`, `HW2_PS_PORT_50051_TCP` and so on. No key looks like that.
fn is_kubernetes_link(variable: &str) -> bool {
    variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || variable.ends_with("_PORT")
        || variable.contains("_PORT_")
}
