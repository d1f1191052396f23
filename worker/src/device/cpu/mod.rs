//! The fast CPU device: f32, SIMD, threads.
//!
//! Threads divide images, strips and blocks among themselves; inside, everything is serial. What is
//! summed over several of them is summed in pieces of constant size and added in order, so that
//! bits depend neither on the number of threads, nor on the width of vectors, nor on the caches.

mod batch_norm;
mod bias;
mod chunks;
mod conv2d;
mod gemm;
mod max_pool;
mod moments;
mod panels;
mod pointwise;
mod relu;
mod scratch;
mod simd;
mod strip;
mod weight_decay;

use super::memory::Memory;
use super::{Buffer, Device, DeviceError, DropoutCoordinates, Op, Request, Span, plain};
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

    fn alloc(&mut self, requests: &[Request]) -> Vec<Buffer> {
        self.memory.alloc(requests)
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

    fn run(&mut self, op: Op) {
        let Self { memory, team, coordinates } = self;
        match op {
            Op::Conv2dForward { window, input, weight, epilogue, output } => {
                conv2d::forward(memory, team, window, input, weight, epilogue, output);
            }
            Op::Conv2dGradInput { window, grad_output, weight, update, grad_input } => {
                conv2d::grad_input(memory, team, window, grad_output, weight, update, grad_input);
            }
            Op::Conv2dGradWeight { window, input, grad_output, grad_weight } => {
                conv2d::grad_weight(memory, team, window, input, grad_output, grad_weight);
            }
            Op::PointwiseForward { input, convs } => pointwise::forward(memory, team, input, convs),
            Op::PointwiseGradInput { convs, grad_input } => {
                pointwise::grad_input(memory, team, convs, grad_input);
            }
            Op::PointwiseGradWeight { input, convs } => {
                pointwise::grad_weight(memory, team, input, convs);
            }
            Op::Moments { input, mean, var } => {
                plain::batch_norm::moments(memory, input, mean, var);
            }
            Op::BatchNormRelu { bn, input, output } => {
                batch_norm::relu_forward(memory, team, bn, input, output);
            }
            Op::BatchNormReluBackward {
                bn,
                input,
                grad_output,
                grad_input: grad,
                grad_weight,
                grad_bias,
            } => {
                if grad != grad_output {
                    memory.copy(grad_output, grad);
                }
                batch_norm::relu_backward(memory, team, bn, input, grad, grad_weight, grad_bias);
            }
            Op::MaxPoolForward { window, input, output, places } => {
                max_pool::forward(memory, team, window, input, output, places);
            }
            Op::MaxPoolBackward { window, places, grad_output, update, grad_input } => {
                max_pool::backward(memory, team, window, places, grad_output, update, grad_input);
            }
            Op::Dropout { mask, tensor } => {
                let coordinates = coordinates.expect("set_dropout comes before dropout");
                plain::dropout::apply(memory, mask, coordinates, tensor);
            }
            Op::ReluBackward { output, grad } => relu::backward(memory, team, output, grad),
            Op::AddBias { bias, tensor } => plain::bias::add(memory, bias, tensor),
            Op::BiasBackward { grad_output, grad_bias } => {
                bias::backward(memory, team, grad_output, grad_bias);
            }
            Op::Gemm { gemm, a, b, c } => gemm::multiply(memory, team, gemm, a, b, c),
            Op::Cast { input, output } => plain::cast::cast(memory, input, output),
            Op::WeightDecay { decay, weight, grad_weight, penalty } => {
                weight_decay::apply(memory, team, decay, weight, grad_weight, penalty);
            }
            Op::SoftmaxCrossEntropy { logits, labels, grad_logits, loss, top1 } => {
                let apply = plain::softmax_cross_entropy::apply;
                apply(memory, logits, labels, grad_logits, loss, top1);
            }
        }
    }
}
