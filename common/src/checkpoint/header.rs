//! The header of a checkpoint file: what a checkpoint says of itself, and where its tensors lie.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorInfo};
use serde::{Deserialize, Serialize};

use super::{Checkpoint, PartFile};
use crate::config::Config;
use crate::ids::GlobalStep;
use crate::job::{Card, Job};
use crate::layout::{ParamLayout, Tensors};
use crate::shard::Shard;
use crate::state::{Evaluation, Flat, Progress, Vectors};

/// Version of what [`About`] and the head comment of `file.rs` say.
const FORMAT: u32 = 2;
/// What every header begins with; the digits of the checksum follow.
pub(super) const HEADER_START: &str = r#"{"__metadata__":{"checksum":""#;
const CHECKSUM_DIGITS: usize = 64;
/// Where those digits lie in the header.
pub(super) const CHECKSUM: Range<usize> = HEADER_START.len()..HEADER_START.len() + CHECKSUM_DIGITS;

/// `checksum` must stay first in its first field: see [`HEADER_START`].
#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: Metadata,
    #[serde(flatten)]
    tensors: BTreeMap<String, TensorInfo>,
}

/// Strings only, which is the rule of the format.
#[derive(Serialize, Deserialize)]
struct Metadata {
    checksum: String,
    /// [`About`] as JSON.
    hw2: String,
}

/// All that a checkpoint says of itself beside its tensors.
#[derive(Serialize, Deserialize)]
struct About {
    format: u32,
    build: String,
    layout_fingerprint: String,
    numeric_kind: Option<String>,
    /// For people and other tools; what `hw2` does follows from `config`.
    preprocessing: String,
    progress: Progress,
    dataset: Card,
    config: Config,
    /// The files of the followers, in order. Their values follow those of this one.
    parts: Vec<PartFile>,
}

/// All that the file of a follower says of itself; what it belongs to says the rest. The same
/// values make the same file, whoever writes it, so that it fits a checkpoint that lists it
/// already.
#[derive(Serialize)]
struct AboutPart {
    format: u32,
    global_step: GlobalStep,
    shard: usize,
    shards: usize,
}

/// What a header of this program's format means: a checkpoint without its vectors.
pub(super) struct Content {
    pub(super) build: String,
    pub(super) numeric_kind: Option<String>,
    pub(super) job: Job,
    pub(super) progress: Progress,
    pub(super) layout: ParamLayout,
    /// Of the parameters, which are in this file.
    pub(super) params: Range<usize>,
    pub(super) parts: Vec<PartFile>,
}

/// One of the flat vectors of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vector {
    Weights,
    Moment1,
    Moment2,
    Ema,
    Buffers,
}

/// One tensor of the file.
pub(super) struct Tensor {
    /// As in the layout, behind the label of its vector.
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) vector: Vector,
    /// Its values in that vector.
    pub(super) range: Range<usize>,
}

impl Vector {
    /// In the order of the file.
    pub(super) const ALL: [Self; 5] =
        [Self::Weights, Self::Moment1, Self::Moment2, Self::Ema, Self::Buffers];

    /// Those as long as there are parameters.
    pub(super) const OF_PARAMS: [Self; 4] =
        [Self::Weights, Self::Moment1, Self::Moment2, Self::Ema];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Moment1 => "moment1",
            Self::Moment2 => "moment2",
            Self::Ema => "ema",
            Self::Buffers => "buffers",
        }
    }

    pub(super) fn of(self, vectors: &Vectors) -> &Flat {
        match self {
            Self::Weights => &vectors.weights,
            Self::Moment1 => &vectors.moment1,
            Self::Moment2 => &vectors.moment2,
            Self::Ema => &vectors.ema,
            Self::Buffers => &vectors.buffers,
        }
    }

    pub(super) fn tensors(self, layout: &ParamLayout) -> &Tensors {
        match self {
            Self::Buffers => &layout.buffers,
            _ => &layout.params,
        }
    }
}

/// The tensors of a state of `layout`, in the order of the file.
pub(super) fn tensors(layout: &ParamLayout) -> Vec<Tensor> {
    let of = |vector: Vector| {
        vector.tensors(layout).entries().iter().map(move |entry| Tensor {
            name: format!("{}.{}", vector.label(), entry.name),
            shape: entry.shape.clone(),
            vector,
            range: entry.range.clone(),
        })
    };
    Vector::ALL.into_iter().flat_map(of).collect()
}

/// The same of a file with `params` of the parameters. If those are not all, it has ranges of the
/// flat vectors; the file that begins with the first parameter has the buffers.
pub(super) fn tensors_of(layout: &ParamLayout, params: &Range<usize>) -> Vec<Tensor> {
    let all = tensors(layout);
    if *params == (0..layout.params.len()) {
        return all;
    }
    let buffers = all.into_iter().filter(|tensor| tensor.vector == Vector::Buffers);
    slices(params).chain(buffers.filter(|_| params.start == 0)).collect()
}

/// A range of each flat vector of parameters.
fn slices(params: &Range<usize>) -> impl Iterator<Item = Tensor> {
    Vector::OF_PARAMS.into_iter().map(|vector| Tensor {
        name: format!("{}[{}..{}]", vector.label(), params.start, params.end),
        shape: vec![params.len()],
        vector,
        range: params.clone(),
    })
}

/// The header of `checkpoint`, of whose vectors its own file has `params` and `parts` the rest,
/// with zeros for the checksum, padded so that the tensors behind it and behind `length_bytes`
/// begin at a multiple of 8.
///
/// # Panics
/// When a number of the progress is not finite: JSON could not hold it.
pub(super) fn render(
    checkpoint: &Checkpoint,
    layout: &ParamLayout,
    params: &Range<usize>,
    parts: &[PartFile],
    length_bytes: usize,
) -> Vec<u8> {
    let Checkpoint { build, job, numeric_kind, state } = checkpoint;
    assert_finite(&state.progress);
    let about = About {
        format: FORMAT,
        build: build.clone(),
        layout_fingerprint: layout.fingerprint(),
        numeric_kind: numeric_kind.clone(),
        preprocessing: preprocessing(&job.config),
        progress: state.progress.clone(),
        dataset: job.dataset.clone(),
        config: job.config.clone(),
        parts: parts.to_vec(),
    };
    render_all(&about, tensors_of(layout, params), length_bytes)
}

/// The same of the file of another shard than the first.
pub(super) fn render_part(
    global_step: GlobalStep,
    shard: Shard,
    params: &Range<usize>,
    length_bytes: usize,
) -> Vec<u8> {
    let Shard { index, count } = shard;
    let about = AboutPart { format: FORMAT, global_step, shard: index, shards: count };
    render_all(&about, slices(params), length_bytes)
}

fn render_all(
    about: &impl Serialize,
    tensors: impl IntoIterator<Item = Tensor>,
    length_bytes: usize,
) -> Vec<u8> {
    let about = serde_json::to_string(about).expect("plain data always becomes JSON");
    let header = Header {
        metadata: Metadata { checksum: "0".repeat(CHECKSUM_DIGITS), hw2: about },
        tensors: infos(tensors),
    };
    let mut header = serde_json::to_vec(&header).expect("plain data always becomes JSON");
    assert!(header.starts_with(HEADER_START.as_bytes()), "the checksum comes first");
    header.resize((length_bytes + header.len()).next_multiple_of(8) - length_bytes, b' ');
    header
}

/// What a header with the right checksum, with `data_bytes` of tensors behind it, means.
///
/// # Errors
/// Why this program cannot use it.
pub(super) fn parse(header: &[u8], data_bytes: u64) -> Result<Content, String> {
    let header: Header = serde_json::from_slice(header).map_err(|e| e.to_string())?;
    let format = format_of(&header.metadata.hw2)?;
    if format != FORMAT {
        return Err(format!("its format is {format}, this program's is {FORMAT}"));
    }
    let about: About = serde_json::from_str(&header.metadata.hw2).map_err(|e| e.to_string())?;
    let job = Job::new(about.config, about.dataset).map_err(|e| e.to_string())?;
    let layout = job.layout().map_err(|e| e.to_string())?;
    let (theirs, ours) = (about.layout_fingerprint, layout.fingerprint());
    if theirs != ours {
        let writer = about.build;
        return Err(format!("its layout has fingerprint {theirs} in {writer} and {ours} here"));
    }
    let end = about.parts.first().map_or(layout.params.len(), |part| part.start);
    let params = 0..end;
    check_parts(&about.parts, layout.params.len())?;
    check_tensors(&header.tensors, &infos(tensors_of(&layout, &params)), data_bytes)?;
    let Progress { global_step, skipped_steps, .. } = about.progress;
    if skipped_steps > global_step.0 {
        return Err(format!("it skipped {skipped_steps} of {} steps", global_step.0));
    }
    Ok(Content {
        build: about.build,
        numeric_kind: about.numeric_kind,
        job,
        progress: about.progress,
        layout,
        params,
        parts: about.parts,
    })
}

/// The format version alone: what else is there may differ in another version.
fn format_of(about: &str) -> Result<u32, String> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    serde_json::from_str(about).map(|about: Version| about.format).map_err(|e| e.to_string())
}

/// What the header says of each tensor.
fn infos(tensors: impl IntoIterator<Item = Tensor>) -> BTreeMap<String, TensorInfo> {
    let mut start = 0;
    let info = |tensor: Tensor| {
        let data_offsets = (start, start + tensor.range.len() * 4);
        start = data_offsets.1;
        (tensor.name, TensorInfo { dtype: Dtype::F32, shape: tensor.shape, data_offsets })
    };
    tensors.into_iter().map(info).collect()
}

/// Whether the parts follow each other to the end, and lie beside their checkpoint.
pub(super) fn check_parts(parts: &[PartFile], len: usize) -> Result<(), String> {
    let ends = parts.iter().skip(1).map(|next| next.start).chain([len]);
    let is_beside = |file: &str| Path::new(file).file_name() == Some(OsStr::new(file));
    let fits = |(part, end): (&PartFile, usize)| {
        part.start < part.end && part.end == end && is_beside(&part.file)
    };
    match parts.iter().zip(ends).all(fits) {
        true => Ok(()),
        false => Err(format!("its parts do not make {len} parameters: {parts:?}")),
    }
}

fn check_tensors(
    found: &BTreeMap<String, TensorInfo>,
    expected: &BTreeMap<String, TensorInfo>,
    data_bytes: u64,
) -> Result<(), String> {
    let same = |a: &TensorInfo, b: &TensorInfo| {
        (a.dtype, &a.shape, a.data_offsets) == (b.dtype, &b.shape, b.data_offsets)
    };
    for (name, info) in expected {
        if !found.get(name).is_some_and(|found| same(found, info)) {
            return Err(format!("tensor `{name}` is missing or has another shape or place"));
        }
    }
    let expected_bytes = expected.values().map(|info| info.data_offsets.1).max().unwrap_or(0);
    match found.len() == expected.len() && data_bytes == expected_bytes as u64 {
        true => Ok(()),
        false => Err(format!(
            "it has {} tensors in {data_bytes} bytes, its model {} in {expected_bytes}",
            found.len(),
            expected.len()
        )),
    }
}

fn assert_finite(progress: &Progress) {
    let Progress { learning_rate, plateau_top1, last_evaluation, best_evaluation, .. } = progress;
    let loss = |evaluation: &Option<Evaluation>| evaluation.map_or(0.0, |known| known.loss);
    let numbers =
        [*learning_rate, plateau_top1.unwrap_or(0.0), loss(last_evaluation), loss(best_evaluation)];
    assert!(numbers.iter().all(|number| number.is_finite()), "not finite: {progress:?}");
}

fn preprocessing(config: &Config) -> String {
    let (side, size) = (config.images.short_side, config.model.image_size);
    format!(
        "8-bit RGB, upright by EXIF, centre-cropped to 8:1, short side resized to {side}; central \
         {side}x{side}; resized to {size}x{size}, bilinear with antialiasing; minus its mean, over \
         max(its standard deviation, 1 / sqrt(number of values)); (n, h, w, c)"
    )
}
