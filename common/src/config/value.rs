//! TOML values by dotted path, and as text for people.

use toml::{Table, Value};

/// The value at a dotted path.
pub(super) fn get<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        None => table.get(path),
        Some((section, rest)) => get(table.get(section)?.as_table()?, rest),
    }
}

/// Puts `value` at a dotted path, of which no part but the last is anything but a table.
pub(super) fn set(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(table.insert(path.into(), value)),
        Some((section, rest)) => {
            let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            set(section.as_table_mut().expect("a section is a table"), rest, value);
        }
    }
}

/// As it would be written in a file; of a list of blocks, their names.
pub(super) fn readable(value: &Value) -> String {
    match value {
        Value::Float(float) => readable_float(*float),
        Value::Array(list) => {
            let name = |value: &Value| Some(value.get("name")?.as_str()?.to_owned());
            let names: Option<Vec<String>> = list.iter().map(name).collect();
            names.map_or_else(|| value.to_string(), |names| names.join(", "))
        }
        other => other.to_string(),
    }
}

/// The fewest digits that give `float` back in its own precision, f32 or f64.
pub(super) fn readable_float(float: f64) -> String {
    match f64::from(float as f32) == float {
        true => format!("{:?}", float as f32),
        false => format!("{float:?}"),
    }
}
