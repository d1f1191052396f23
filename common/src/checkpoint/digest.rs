//! One number for all that decides a run's future.

use sha2::{Digest, Sha256};

use super::Checkpoint;
use super::file::write_le;
use super::header::tensors;
use crate::config::{leaves, line};

impl Checkpoint {
    /// SHA-256, in hex, over what decides how the run goes on:
    ///
    /// - every tensor in byte order of its name (`buffers.`, `ema.`, `moment1.`, `moment2.`,
    ///   `weights.`): a line `name [shape]`, then its values as little-endian f32;
    /// - every value of [`crate::state::Progress`] and of the dataset card, in byte order of its
    ///   path: a line `path = value`, floats as the bits of their f64;
    /// - a line `config = ` with [`crate::config::Config::fingerprint`].
    ///
    /// Equal digests mean equal runs from here on. What does not decide bits does not enter: keys
    /// of class stop and place, how many workers there were, the program's version, and the numeric
    /// kind (where that matters, the tensors differ).
    pub fn digest(&self) -> String {
        let layout = self.layout();
        let mut tensors = tensors(&layout);
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let mut hash = Sha256::new();
        for tensor in tensors {
            hash.update(format!("{} {:?}\n", tensor.name, tensor.shape));
            let values = &tensor.vector.of(&self.state.vectors)[tensor.range];
            write_le(values, &mut hash).expect("a hash takes all bytes");
        }
        for (path, value) in leaves(&self.state.progress) {
            hash.update(line(&format!("progress.{path}"), &value));
        }
        for (path, value) in leaves(&self.job.dataset) {
            hash.update(line(&format!("dataset.{path}"), &value));
        }
        hash.update(format!("config = {}\n", self.job.config.fingerprint()));
        crate::hex(&hash.finalize())
    }
}
