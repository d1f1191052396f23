//! The fast CPU device: f32, SIMD, threads.
//!
//! Threads divide images, strips and blocks among themselves; inside, everything is serial. What is
//! summed over several of them is summed in pieces of constant size and added in order, so that bits
//! depend neither on the number of threads, nor on the width of vectors, nor on the caches.

mod batch_norm;
mod bias;
mod chunks;
mod conv2d;
mod gemm;
mod max_pool;
mod moments;
mod panels;
mod relu;
mod scratch;
mod simd;
mod strip;
mod weight_decay;

use super::memory::Memory;
use super::{
    BatchNorm, Buffer, Device, DeviceError, DropoutCoordinates, Epilogue, Gemm, Mask, Span, Tensor,
    Update, Window, plain,
};
use simd::Simd;

/// Threads and vectors of this machine's processors.
#[derive(Debug)]
pub struct Cpu {
    memory: Memory<f32>,
    team: Team,
    coordinates: Option<DropoutCoordinates>,
}

/// What works, and the memory that is shared within one primitive.
#[derive(Debug)]
struct Team {
    pool: rayon::ThreadPool,
    simd: Simd,
    /// The right side of a product that all threads read.
    panels: Vec<f32>,
    /// Results of parts, added in order when all are there.
    partials: Vec<f32>,
}

impl Cpu {
    /// A device with `threads` threads, or one per core if that is 0.
    ///
    /// # Errors
    /// The threads cannot be started.
    pub fn new(threads: usize) -> Result<Self, DeviceError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("compute {index}"))
            .build()
            .map_err(|error| DeviceError { device: "cpu".into(), problem: error.to_string() })?;
        let team = Team { pool, simd: Simd::new(), panels: Vec::new(), partials: Vec::new() };
        Ok(Self { memory: Memory::default(), team, coordinates: None })
    }
}

impl Device for Cpu {
    type Elem = f32;

    fn describe(&self) -> String {
        let threads = self.team.pool.current_num_threads();
        format!("CPU, {threads} threads, {}", self.team.simd.name())
    }

    fn alloc(&mut self, len: usize) -> Buffer {
        self.memory.alloc(len)
    }

    fn upload(&mut self, target: Span, values: &[f32]) {
        self.memory.span_mut(target).copy_from_slice(values);
    }

    fn download(&mut self, source: Span, values: &mut [f32]) -> Result<(), DeviceError> {
        values.copy_from_slice(self.memory.span(source));
        Ok(())
    }

    fn set_dropout(&mut self, coordinates: DropoutCoordinates) {
        self.coordinates = Some(coordinates);
    }

    fn conv2d_forward(
        &mut self,
        window: Window,
        input: Tensor,
        weight: Span,
        epilogue: Epilogue,
        output: Tensor,
    ) {
        let Self { memory, team, .. } = self;
        conv2d::forward(memory, team, window, input, weight, epilogue, output);
    }

    fn conv2d_grad_input(
        &mut self,
        window: Window,
        grad_output: Tensor,
        weight: Span,
        update: Update,
        grad_input: Tensor,
    ) {
        let Self { memory, team, .. } = self;
        conv2d::grad_input(memory, team, window, grad_output, weight, update, grad_input);
    }

    fn conv2d_grad_weight(
        &mut self,
        window: Window,
        input: Tensor,
        grad_output: Tensor,
        grad_weight: Span,
    ) {
        let Self { memory, team, .. } = self;
        conv2d::grad_weight(memory, team, window, input, grad_output, grad_weight);
    }

    fn moments(&mut self, input: Tensor, mean: Span, var: Span) {
        plain::batch_norm::moments(&mut self.memory, input, mean, var);
    }

    fn batch_norm_relu(&mut self, bn: BatchNorm, input: Tensor, output: Tensor) {
        batch_norm::relu_forward(&mut self.memory, &self.team, bn, input, output);
    }

    fn batch_norm_relu_backward(
        &mut self,
        bn: BatchNorm,
        input: Tensor,
        grad: Tensor,
        grad_weight: Span,
        grad_bias: Span,
    ) {
        let Self { memory, team, .. } = self;
        batch_norm::relu_backward(memory, team, bn, input, grad, grad_weight, grad_bias);
    }

    fn max_pool_forward(
        &mut self,
        window: Window,
        input: Tensor,
        output: Tensor,
        places: Option<Tensor>,
    ) {
        max_pool::forward(&mut self.memory, &self.team, window, input, output, places);
    }

    fn max_pool_backward(
        &mut self,
        window: Window,
        places: Tensor,
        grad_output: Tensor,
        update: Update,
        grad_input: Tensor,
    ) {
        let Self { memory, team, .. } = self;
        max_pool::backward(memory, team, window, places, grad_output, update, grad_input);
    }

    fn dropout(&mut self, mask: Mask, tensor: Tensor) {
        let coordinates = self.coordinates.expect("set_dropout comes before dropout");
        plain::dropout::apply(&mut self.memory, mask, coordinates, tensor);
    }

    fn relu_backward(&mut self, output: Tensor, grad: Tensor) {
        relu::backward(&mut self.memory, &self.team, output, grad);
    }

    fn add_bias(&mut self, bias: Span, tensor: Tensor) {
        plain::bias::add(&mut self.memory, bias, tensor);
    }

    fn bias_backward(&mut self, grad_output: Tensor, grad_bias: Span) {
        bias::backward(&mut self.memory, &mut self.team, grad_output, grad_bias);
    }

    fn gemm(&mut self, gemm: Gemm, a: Span, b: Span, c: Span) {
        gemm::multiply(&mut self.memory, &mut self.team, gemm, a, b, c);
    }

    fn weight_decay(&mut self, decay: f32, weight: Span, grad_weight: Span, penalty: Span) {
        let Self { memory, team, .. } = self;
        weight_decay::apply(memory, team, decay, weight, grad_weight, penalty);
    }

    fn softmax_cross_entropy(
        &mut self,
        logits: Tensor,
        labels: Span,
        grad_logits: Tensor,
        loss: Span,
        top1: Span,
    ) {
        let memory = &mut self.memory;
        plain::softmax_cross_entropy::apply(memory, logits, labels, grad_logits, loss, top1);
    }
}
