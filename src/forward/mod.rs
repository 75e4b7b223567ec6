//! The forward pass: column norms of a model's activations, and its losses, one decoder block in memory at a time.
//!
//! All sequences go through a block before the next one is read, so that a model larger than memory works: what is held
//! is a block in f32, and the hidden states of the sequences, [`HIDDEN_BYTES`] of them at a time. The head is read in
//! pieces of the vocabulary, whose log-sum-exps are merged.
//!
//! The trait `Engine` is what a device has to do; `cpu.rs` does it with candle, `gpu.rs` with kernels of its own.

mod capture;
mod cpu;
mod exp;
mod gpu;
pub(crate) mod kernels;
mod weights;

use std::path::PathBuf;

use crate::checkpoint::{self, Checkpoint, shown};
use crate::device::{self, Backend, Device};
use crate::model::{Architecture, Block, NormTensors, Site};
use crate::norms::{self, Format, Norms, Provenance};

use capture::Capture;
use weights::Weights;

/// Hidden states in memory at a time, in bytes; more sequences go through the model group by group.
pub const HIDDEN_BYTES: usize = 256 << 20;

/// Bytes of f32 that a piece of the head may take, and of its logits.
const HEAD_BYTES: usize = 64 << 20;

/// Why a forward pass failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The tokenizer and the model are of different sizes.
    #[error(
        "token {token} is beyond the embedding's {vocab_size} rows: the tokenizer.json is of another model than the weights"
    )]
    TokenOutOfRange {
        /// The token.
        token: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The activations are no numbers any more.
    #[error(
        "the activations at {} are not finite: the weights hold NaN or infinities, or are of another model than config.json",
        shown(at)
    )]
    NotFinite {
        /// The weight whose input it is, or the head.
        at: String,
    },
    /// The norms cannot be kept.
    #[error(transparent)]
    Norms(#[from] norms::Error),
    /// A tensor that was not checked beforehand; an error of this program.
    #[error("no tensor {}", shown(_0))]
    NoSuchTensor(String),
    /// The adapter failed.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// The library that computes refused, or the adapter has less than the model needs.
    #[error("the forward pass failed: {_0}")]
    Engine(String),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Engine(error.to_string())
    }
}

/// How far a forward pass is, in tokens times layers; the head counts as a layer of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Part that is done, 0 to 1.
    pub done: f64,
    /// Tokens of the whole pass.
    pub tokens: usize,
}

/// A checkpoint ready to run.
#[derive(Debug)]
pub struct Forward<'a> {
    checkpoint: &'a Checkpoint,
    architecture: &'a Architecture,
    device: &'a Device,
}

/// The column norms of one sequence at the four sites of a block.
type SiteNorms = [Vec<f32>; Site::ALL.len()];

/// What a device has to do. Matrices are row-major, a sequence is `[tokens, features]`.
trait Engine {
    /// A block's weights on the device.
    type Block;
    /// A sequence's hidden state on the device.
    type Hidden;
    /// The norm before the head on the device.
    type Head;

    /// Takes the embedding's rows of one sequence.
    fn embed(&self, rows: Vec<f32>, tokens: usize) -> Result<Self::Hidden, Error>;

    /// Brings a block's weights to the device.
    fn load(&self, weights: &Weights<'_>, block: &Block) -> Result<Self::Block, Error>;

    /// How many sequences of `context` tokens [`run`](Self::run) should get at a time.
    fn in_flight(&self, context: usize) -> usize;

    /// Sequences through one block, each for itself; gives the column norms of each at each site, in [`Site::ALL`]'s order.
    fn run(
        &self,
        block: &Self::Block,
        hidden: &mut [Self::Hidden],
    ) -> Result<Vec<SiteNorms>, Error>;

    /// Brings the norm before the head to the device.
    fn load_head(&self, weights: &Weights<'_>, norm: &NormTensors) -> Result<Self::Head, Error>;

    /// Normalises a hidden state for the head.
    fn finish(&self, head: &Self::Head, hidden: &Self::Hidden) -> Result<Self::Hidden, Error>;

    /// Of each sequence, the logits for the rows of the head from `first_row` on, `head_rows` (`[rows, hidden_size]`),
    /// summed up for each token that `next` has a successor of.
    fn partials(
        &self,
        head_rows: &[f32],
        first_row: usize,
        hidden: &[Self::Hidden],
        next: &[&[u32]],
    ) -> Result<Vec<Vec<Partial>>, Error>;

    /// The logits themselves, `[tokens, rows]`.
    fn logits(&self, head_rows: &[f32], hidden: &Self::Hidden) -> Result<Vec<f32>, Error>;
}

/// Calls `$work` with the engine of the device.
macro_rules! with_engine {
    ($self:ident, $sequences:expr, |$engine:ident| $work:expr) => {{
        let architecture = $self.architecture;
        let context = $self.check($sequences)?;
        match $self.device.backend() {
            Backend::Cpu(cpu) => {
                let $engine = cpu::Cpu::new(architecture, context, cpu.threads())?;
                $work
            }
            Backend::Gpu(gpu) => {
                let $engine = gpu::Gpu::new(architecture, context, gpu.context())?;
                $work
            }
        }
    }};
}

impl<'a> Forward<'a> {
    /// A forward pass of `checkpoint`, which `architecture` was read from.
    #[must_use]
    pub fn new(
        checkpoint: &'a Checkpoint,
        architecture: &'a Architecture,
        device: &'a Device,
    ) -> Self {
        Self {
            checkpoint,
            architecture,
            device,
        }
    }

    /// The column norms of every linear layer's input, summed over all tokens of all sequences.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn column_norms(
        &self,
        sequences: &[&[u32]],
        progress: &dyn Fn(Progress),
    ) -> Result<Norms, Error> {
        let architecture = self.architecture;
        let captures = with_engine!(self, sequences, |engine| self
            .captures(&engine, sequences, progress))?;
        let tokens = sequences.iter().map(|s| s.len() as u64).sum();
        let mut norms = Norms::new(Provenance {
            path: self.source(),
            format: Format::Measured,
            tokens: Some(tokens),
            metadata: Default::default(),
        });
        for (index, capture) in captures.iter().enumerate() {
            let block = architecture.block(index);
            for site in Site::ALL {
                let column_norms = capture.column_norms(site);
                for linear in block.readers(site) {
                    if column_norms.iter().any(|norm| !norm.is_finite()) {
                        return Err(Error::NotFinite {
                            at: linear.weight.clone(),
                        });
                    }
                    norms.insert(linear.weight.clone(), column_norms.clone())?;
                }
            }
        }
        Ok(norms)
    }

    /// The loss of every token but the first of each sequence, in nats.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn losses(
        &self,
        sequences: &[&[u32]],
        progress: &dyn Fn(Progress),
    ) -> Result<Vec<Vec<f32>>, Error> {
        with_engine!(self, sequences, |engine| self
            .losses_on(&engine, sequences, progress))
    }

    /// The logits of one sequence, `[tokens, vocab_size]`: for tests, as they are large.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn logits(&self, sequence: &[u32]) -> Result<Vec<f32>, Error> {
        with_engine!(self, &[sequence], |engine| self
            .logits_on(&engine, sequence))
    }

    /// The longest sequence, if every token has a row in the embedding.
    fn check(&self, sequences: &[&[u32]]) -> Result<usize, Error> {
        let vocab_size = self.architecture.vocab_size;
        let tokens = sequences.iter().copied().flatten();
        match tokens.max() {
            Some(&token) if token as usize >= vocab_size => {
                Err(Error::TokenOutOfRange { token, vocab_size })
            }
            _ => Ok(longest(sequences)),
        }
    }

    fn captures<E: Engine>(
        &self,
        engine: &E,
        sequences: &[&[u32]],
        progress: &dyn Fn(Progress),
    ) -> Result<Vec<Capture>, Error> {
        let architecture = self.architecture;
        let weights = Weights::open(self.checkpoint)?;
        let mut captures: Vec<Capture> = (0..architecture.blocks)
            .map(|index| Capture::new(&architecture.block(index)))
            .collect();
        let mut meter = Meter::new(sequences, architecture.blocks, progress);
        for group in self.groups(sequences) {
            let mut observe = |block: usize, site, norms: &[f32]| captures[block].add(site, norms);
            self.blocks(engine, &weights, group, &mut observe, &mut meter)?;
        }
        Ok(captures)
    }

    fn losses_on<E: Engine>(
        &self,
        engine: &E,
        sequences: &[&[u32]],
        progress: &dyn Fn(Progress),
    ) -> Result<Vec<Vec<f32>>, Error> {
        let weights = Weights::open(self.checkpoint)?;
        let mut meter = Meter::new(sequences, self.architecture.blocks + 1, progress);
        let mut losses = Vec::new();
        for group in self.groups(sequences) {
            let hidden = self.blocks(engine, &weights, group, &mut |_, _, _| {}, &mut meter)?;
            losses.extend(self.head(engine, &weights, group, hidden)?);
            meter.step(group.iter().map(|sequence| sequence.len()).sum());
        }
        Ok(losses)
    }

    fn logits_on<E: Engine>(&self, engine: &E, sequence: &[u32]) -> Result<Vec<f32>, Error> {
        let weights = Weights::open(self.checkpoint)?;
        let mut meter = Meter::new(&[sequence], self.architecture.blocks, &|_| {});
        let hidden = self.blocks(engine, &weights, &[sequence], &mut |_, _, _| {}, &mut meter)?;
        let norm = engine.load_head(&weights, &self.architecture.final_norm())?;
        let rows = weights.read(&self.architecture.head())?;
        engine.logits(&rows, &engine.finish(&norm, &hidden[0])?)
    }

    fn source(&self) -> PathBuf {
        self.checkpoint.source.weights().path().to_path_buf()
    }

    /// Sequences in groups whose hidden states fit into [`HIDDEN_BYTES`].
    fn groups<'s>(&self, sequences: &'s [&'s [u32]]) -> impl Iterator<Item = &'s [&'s [u32]]> {
        let context = longest(sequences).max(1);
        let bytes = 4 * context * self.architecture.hidden_size;
        sequences.chunks((HIDDEN_BYTES / bytes).max(1))
    }

    /// Some sequences through the embedding and all blocks; gives their hidden states.
    fn blocks<E: Engine>(
        &self,
        engine: &E,
        weights: &Weights<'_>,
        sequences: &[&[u32]],
        observe: &mut dyn FnMut(usize, Site, &[f32]),
        meter: &mut Meter<'_>,
    ) -> Result<Vec<E::Hidden>, Error> {
        let embedding = self.architecture.embedding();
        let mut hidden = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            let mut rows = Vec::with_capacity(sequence.len() * self.architecture.hidden_size);
            for &token in *sequence {
                rows.extend(weights.read_rows(&embedding, token as usize, 1)?);
            }
            hidden.push(engine.embed(rows, sequence.len())?);
        }
        let in_flight = engine.in_flight(longest(sequences));
        for index in 0..self.architecture.blocks {
            let block = engine.load(weights, &self.architecture.block(index))?;
            let chunks = hidden
                .chunks_mut(in_flight)
                .zip(sequences.chunks(in_flight));
            for (hidden, sequences) in chunks {
                // In the order of the sequences, whatever the order they were done in.
                for norms in engine.run(&block, hidden)? {
                    for (site, norms) in Site::ALL.into_iter().zip(&norms) {
                        observe(index, site, norms);
                    }
                }
                meter.step(sequences.iter().map(|s| s.len()).sum());
            }
        }
        Ok(hidden)
    }

    /// The losses of some sequences, from their hidden states.
    fn head<E: Engine>(
        &self,
        engine: &E,
        weights: &Weights<'_>,
        sequences: &[&[u32]],
        mut hidden: Vec<E::Hidden>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let Architecture {
            hidden_size,
            vocab_size,
            ..
        } = *self.architecture;
        let norm = engine.load_head(weights, &self.architecture.final_norm())?;
        for hidden in &mut hidden {
            *hidden = engine.finish(&norm, hidden)?;
        }
        let context = longest(sequences);
        let next: Vec<&[u32]> = sequences
            .iter()
            .map(|sequence| &sequence[1.min(sequence.len())..])
            .collect();
        let mut sums: Vec<Vec<LogSumExp>> = next
            .iter()
            .map(|next| vec![LogSumExp::default(); next.len()])
            .collect();
        let in_flight = engine.in_flight(context);
        let piece = (HEAD_BYTES / (4 * hidden_size.max(context * in_flight))).max(1);
        let head = self.architecture.head();
        for first in (0..vocab_size).step_by(piece) {
            let rows = first..(first + piece).min(vocab_size);
            let head_rows = weights.read_rows(&head, first, rows.len())?;
            let chunks = hidden
                .chunks(in_flight)
                .zip(next.chunks(in_flight))
                .zip(sums.chunks_mut(in_flight));
            for ((hidden, next), sums) in chunks {
                let partials = engine.partials(&head_rows, first, hidden, next)?;
                for ((partials, next), sums) in partials.iter().zip(next).zip(sums) {
                    for ((partial, next), sum) in partials.iter().zip(*next).zip(sums) {
                        sum.add(partial, rows.contains(&(*next as usize)));
                    }
                }
            }
        }
        let losses: Vec<Vec<f32>> = sums
            .iter()
            .map(|sums| sums.iter().map(LogSumExp::loss).collect())
            .collect();
        if losses.iter().flatten().any(|loss| !loss.is_finite()) {
            return Err(Error::NotFinite { at: head });
        }
        Ok(losses)
    }
}

/// Tokens of the longest sequence.
fn longest(sequences: &[&[u32]]) -> usize {
    sequences.iter().map(|s| s.len()).max().unwrap_or(0)
}

/// What some of a token's logits add to its loss.
#[derive(Clone, Copy, Debug)]
struct Partial {
    largest: f32,
    /// Of `exp(logit - largest)`.
    sum: f32,
    /// The logit of the token that follows; of no meaning if that is not among these.
    target: f32,
}

/// A softmax's denominator, gathered piece by piece, and the logit it is for.
#[derive(Clone, Copy, Debug)]
struct LogSumExp {
    largest: f32,
    /// Of `exp(logit - largest)`.
    sum: f64,
    target: f32,
}

impl Default for LogSumExp {
    fn default() -> Self {
        Self {
            largest: f32::NEG_INFINITY,
            sum: 0.0,
            target: f32::NAN,
        }
    }
}

impl LogSumExp {
    fn add(&mut self, partial: &Partial, has_target: bool) {
        let largest = self.largest.max(partial.largest);
        let share = |sum: f64, of: f32| sum * f64::from(of - largest).exp();
        self.sum = share(self.sum, self.largest) + share(f64::from(partial.sum), partial.largest);
        self.largest = largest;
        if has_target {
            self.target = partial.target;
        }
    }

    fn loss(&self) -> f32 {
        (f64::from(self.largest) + self.sum.ln() - f64::from(self.target)) as f32
    }
}

/// Counts tokens times layers.
struct Meter<'a> {
    done: usize,
    total: usize,
    tokens: usize,
    progress: &'a dyn Fn(Progress),
}

impl<'a> Meter<'a> {
    fn new(sequences: &[&[u32]], layers: usize, progress: &'a dyn Fn(Progress)) -> Self {
        let tokens = sequences.iter().map(|s| s.len()).sum::<usize>();
        Self {
            done: 0,
            total: tokens * layers,
            tokens,
            progress,
        }
    }

    fn step(&mut self, tokens: usize) {
        self.done += tokens;
        (self.progress)(Progress {
            done: self.done as f64 / self.total as f64,
            tokens: self.tokens,
        });
    }
}
