//! Reads a config file: its settings, each with its line, and its profiles.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Value};

use super::keys::suggestion;
use super::layers::Setting;
use super::{Source, key, keys};

/// The table whose tables are profiles.
const PROFILE: &str = "profile";

/// What a file holds.
#[derive(Default)]
pub(super) struct Document {
    /// Outside any profile.
    pub(super) settings: Vec<Setting>,
    /// `[profile.NAME]`, by name.
    pub(super) profiles: BTreeMap<String, Vec<Setting>>,
    /// What is wrong, with file and line: unknown keys, sections that are none, what is not TOML.
    pub(super) problems: Vec<String>,
}

/// Reads the whole file, every profile included. The values are not checked.
pub(super) fn read(path: &Path) -> Document {
    let fail = |problem| Document { problems: vec![problem], ..Document::default() };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return fail(format!("cannot read config file {}: {error}", path.display())),
    };
    match DeTable::parse(&text) {
        Ok(table) => Reader { path, text: &text, problems: Vec::new() }.read(table.into_inner()),
        Err(mut error) => {
            error.set_input(Some(&text));
            fail(format!("{}: {error}", path.display()))
        }
    }
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    /// Each with where in the text it is.
    problems: Vec<(usize, String)>,
}

impl Reader<'_> {
    fn read(mut self, mut table: DeTable<'_>) -> Document {
        let profiles = table.remove(PROFILE).map(|value| self.profiles(value)).unwrap_or_default();
        let settings = self.settings(table, "", None);
        self.problems.sort_by_key(|(start, _)| *start);
        let problems = self.problems.into_iter().map(|(_, problem)| problem).collect();
        Document { settings, profiles, problems }
    }

    fn profiles(&mut self, value: Spanned<DeValue<'_>>) -> BTreeMap<String, Vec<Setting>> {
        let mut profiles = BTreeMap::new();
        let start = value.span().start;
        let DeValue::Table(table) = value.into_inner() else {
            self.problem(start, None, format!("{PROFILE} holds tables only: [{PROFILE}.NAME]"));
            return profiles;
        };
        for (name, value) in table {
            let (start, name) = (name.span().start, name.into_inner().into_owned());
            if let DeValue::Table(table) = value.into_inner() {
                let settings = self.settings(table, "", Some(&name));
                profiles.insert(name, settings);
            } else {
                let path = format!("{PROFILE}.{name}");
                self.problem(start, None, format!("{path} must be a table: [{path}]"));
            }
        }
        profiles
    }

    /// The settings below `prefix`, which is empty or ends with a dot.
    fn settings(
        &mut self,
        table: DeTable<'_>,
        prefix: &str,
        profile: Option<&str>,
    ) -> Vec<Setting> {
        let mut settings = Vec::new();
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let start = name.span().start;
            let path = format!("{prefix}{}", name.get_ref());
            let below = format!("{path}.");
            if let Some(key) = key(&path) {
                let written = &self.text[value.span()];
                match Value::deserialize(ValueDeserializer::from(value)) {
                    Ok(value) => {
                        settings.push(Setting { key, value, source: self.source(start, profile) });
                    }
                    // An integer beyond 64 bits.
                    Err(_) => {
                        let problem = format!("{path} = {written} must be {}", key.value);
                        self.problem(start, profile, problem);
                    }
                }
            } else if !keys().any(|key| key.name.starts_with(&below)) {
                let sections = keys().filter_map(|key| Some(key.name.split_once('.')?.0));
                let suggestion = suggestion(&path, keys().map(|key| key.name).chain(sections));
                self.problem(start, profile, format!("unknown key `{path}`{suggestion}"));
            } else if let DeValue::Table(table) = value.into_inner() {
                settings.extend(self.settings(table, &below, profile));
            } else {
                let problem = format!("{path} is a section: [{path}], its keys below it");
                self.problem(start, profile, problem);
            }
        }
        settings
    }

    fn problem(&mut self, start: usize, profile: Option<&str>, problem: String) {
        self.problems.push((start, format!("{}: {problem}", self.source(start, profile))));
    }

    fn source(&self, start: usize, profile: Option<&str>) -> Source {
        let line = 1 + self.text[..start].matches('\n').count();
        let path = PathBuf::from(self.path);
        Source::File { path, line, profile: profile.map(str::to_owned) }
    }
}
