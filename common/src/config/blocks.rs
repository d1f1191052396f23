//! What `[[model.blocks]]` can hold, so that a mistake is named where it is.

use toml::{Table, Value};

use super::keys::{ValueType, suggestion};

/// A field of a block.
#[derive(Clone, Copy)]
enum Field {
    Value(ValueType),
    /// Of an inception block's four branches.
    FourSizes,
    /// Of a conv_stack: tables of [`CONVOLUTION`].
    Convolutions,
}

type Fields = &'static [(&'static str, Field)];

const NAME: (&str, Field) = ("name", Field::Value(ValueType::Text));
/// The network knows the limits; here only the type counts.
const SIZE: Field = Field::Value(ValueType::Integer { min: 0, max: u32::MAX as u64 });
const NUMBER: Field =
    Field::Value(ValueType::Real(std::ops::Bound::Unbounded, std::ops::Bound::Unbounded));

const INCEPTION: Fields = &[NAME, ("branches", Field::FourSizes), ("bottleneck", SIZE)];
const CONVOLUTION: Fields = &[("channels", SIZE), ("kernel_size", SIZE), ("stride", SIZE)];

/// The fields of [`crate::model::Block`], by kind.
const KINDS: &[(&str, Fields)] = &[
    ("conv_stack", &[NAME, ("layers", Field::Convolutions)]),
    ("max_pool", &[NAME, ("kernel_size", SIZE), ("stride", SIZE)]),
    ("inception_v1", INCEPTION),
    ("inception_v2", INCEPTION),
    ("spatial_dropout", &[NAME, ("keep", NUMBER)]),
    ("dense", &[NAME, ("units", SIZE), ("keep", NUMBER), ("weight_decay", NUMBER)]),
    ("softmax_linear", &[NAME]),
];

/// What is wrong with the types and names in a `model.blocks`, each with its place and value.
pub(super) fn problems(blocks: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        let mut place = format!("model.blocks[{index}]");
        let Some(block) = block.as_table() else {
            problems.push(format!("{place} = {block} must be a table ([[model.blocks]])"));
            continue;
        };
        if let Some(name) = block.get("name").and_then(Value::as_str) {
            place += &format!(" `{name}`");
        }
        let kinds = || KINDS.iter().map(|(kind, _)| *kind);
        match block.get("kind").and_then(Value::as_str) {
            None => problems.push(format!("{place} needs a `kind`: {}", list(kinds()))),
            Some(kind) => match KINDS.iter().find(|(known, _)| *known == kind) {
                Some((_, fields)) => check_fields(&place, block, fields, &mut problems),
                None => problems.push(format!(
                    "{place}: unknown kind `{kind}`{}; there are {}",
                    suggestion(kind, kinds()),
                    list(kinds())
                )),
            },
        }
    }
    problems
}

fn check_fields(place: &str, table: &Table, fields: Fields, problems: &mut Vec<String>) {
    let names = || fields.iter().map(|(name, _)| *name);
    for unknown in table.keys().filter(|key| *key != "kind" && !names().any(|name| name == *key)) {
        let suggestion = suggestion(unknown, names());
        problems.push(format!(
            "{place}: unknown key `{unknown}`{suggestion}; there are {}",
            list(names())
        ));
    }
    for (name, field) in fields {
        match table.get(*name) {
            None => problems.push(format!("{place} needs `{name}`")),
            Some(value) => check_field(place, name, value, *field, problems),
        }
    }
}

fn check_field(place: &str, name: &str, value: &Value, field: Field, problems: &mut Vec<String>) {
    let mut must_be = |expected: &str| {
        problems.push(format!("{place}: {name} = {value} must be {expected}"));
    };
    match field {
        Field::Value(expected) if expected.accepts(value) => {}
        Field::Value(expected) => must_be(&expected.to_string()),
        Field::FourSizes => {
            let Field::Value(size) = SIZE else { unreachable!("a size is a value") };
            let fits = |list: &&Vec<Value>| list.len() == 4 && list.iter().all(|v| size.accepts(v));
            if value.as_array().filter(fits).is_none() {
                must_be("a list of four integers, one for each branch");
            }
        }
        Field::Convolutions => match value.as_array() {
            None => must_be("a list of tables with channels, kernel_size and stride"),
            Some(convolutions) => {
                for (index, convolution) in convolutions.iter().enumerate() {
                    let place = format!("{place}: {name}[{index}]");
                    match convolution.as_table() {
                        Some(table) => check_fields(&place, table, CONVOLUTION, problems),
                        None => problems.push(format!("{place} = {convolution} must be a table")),
                    }
                }
            }
        },
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Block, ConvSpec};

    #[test]
    fn the_table_has_the_fields_of_every_kind_of_block() {
        let name = || "block".to_owned();
        let (branches, bottleneck) = ([1; 4], 1);
        let convolution = ConvSpec { channels: 1, kernel_size: 1, stride: 1 };
        let blocks = [
            Block::ConvStack { name: name(), layers: vec![convolution] },
            Block::MaxPool { name: name(), kernel_size: 1, stride: 1 },
            Block::InceptionV1 { name: name(), branches, bottleneck },
            Block::InceptionV2 { name: name(), branches, bottleneck },
            Block::SpatialDropout { name: name(), keep: 1.0 },
            Block::Dense { name: name(), units: 1, keep: 1.0, weight_decay: 0.0 },
            Block::SoftmaxLinear { name: name() },
        ];
        assert_eq!(blocks.len(), KINDS.len());
        let values: Vec<Value> = blocks.iter().map(|b| Value::try_from(b).unwrap()).collect();
        assert_eq!(problems(&values), Vec::<String>::new());
        for (value, (kind, _)) in values.iter().zip(KINDS) {
            assert_eq!(value["kind"].as_str(), Some(*kind));
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_block_and_what_there_is() {
        let of = |text: &str| {
            let table: Table = text.parse().unwrap();
            problems(table["blocks"].as_array().unwrap())
        };
        assert_eq!(
            of("blocks = [{ kind = 'dense', name = 'd', unit = 3, keep = 'x', weight_decay = 0 }]"),
            [
                "model.blocks[0] `d`: unknown key `unit`; did you mean `units`?; there are name, \
                 units, keep, weight_decay",
                "model.blocks[0] `d` needs `units`",
                "model.blocks[0] `d`: keep = \"x\" must be a finite number",
            ]
        );
        assert_eq!(
            of(r#"blocks = [3, { name = "p" }, { kind = "maxpool" }]"#),
            [
                "model.blocks[0] = 3 must be a table ([[model.blocks]])",
                "model.blocks[1] `p` needs a `kind`: conv_stack, max_pool, inception_v1, \
                 inception_v2, spatial_dropout, dense, softmax_linear",
                "model.blocks[2]: unknown kind `maxpool`; did you mean `max_pool`?; there are \
                 conv_stack, max_pool, inception_v1, inception_v2, spatial_dropout, dense, \
                 softmax_linear",
            ]
        );
        assert_eq!(
            of(
                r#"blocks = [{ kind = "conv_stack", name = "c", layers = [{ channels = -1 }, 2] }]"#
            ),
            [
                "model.blocks[0] `c`: layers[0]: channels = -1 must be an integer from 0 to \
                 4294967295",
                "model.blocks[0] `c`: layers[0] needs `kernel_size`",
                "model.blocks[0] `c`: layers[0] needs `stride`",
                "model.blocks[0] `c`: layers[1] = 2 must be a table",
            ]
        );
        assert_eq!(
            of("blocks = [{ kind = 'inception_v1', name = 'i', bottleneck = 1, branches = [1] }]"),
            ["model.blocks[0] `i`: branches = [1] must be a list of four integers, one for each \
                 branch"]
        );
    }
}
