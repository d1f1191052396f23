//! The config as used, with the source of every value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use toml::Table;

use super::value::{get, readable};
use super::{Class, Config, Key, keys};

/// The config as used, and where each of its values came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Valid.
    pub config: Config,
    pub(super) sources: BTreeMap<&'static str, Source>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody gave one.
    Default,
    /// A config file.
    File {
        /// As it was given.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The profile it is part of; none outside all of them.
        profile: Option<String>,
    },
    /// A variable.
    Environment(String),
    /// A command-line flag.
    Flag(String),
}

/// One line of what `hw2 config` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Dotted path.
    pub key: &'static str,
    /// As it would be written in a file; of `model.blocks`, the names.
    pub value: String,
    /// What a change of it does.
    pub class: Class,
    /// [`Source`] as text.
    pub source: String,
    /// What it means.
    pub doc: &'static str,
}

impl Resolved {
    /// Where the value of `key` came from.
    ///
    /// # Panics
    /// When there is no such key.
    pub fn source(&self, key: &str) -> &Source {
        self.sources.get(key).unwrap_or_else(|| panic!("no config key `{key}`"))
    }

    /// Every key with its value, class, source and meaning.
    pub fn rows(&self) -> Vec<Row> {
        let table = Table::try_from(&self.config).expect("a valid config can be written");
        let row = |key: &'static Key| Row {
            key: key.name,
            value: readable(get(&table, key.name).expect("a config has every key")),
            class: key.class,
            source: self.source(key.name).to_string(),
            doc: key.doc,
        };
        keys().map(row).collect()
    }
}

impl Config {
    /// A config file with every value of this one.
    ///
    /// # Panics
    /// When the config is not valid.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a valid config can be written")
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::File { path, line, profile: None } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line, profile: Some(profile) } => {
                write!(f, "{}:{line} [profile.{profile}]", path.display())
            }
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}
