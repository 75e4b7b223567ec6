//! The forward pass: statistics of a model's activations, and its losses, one decoder block in memory at a time.
//!
//! All windows go through a block before the next one is read, so that a model larger than memory works: what is held
//! is a block in f32, and the hidden states of as many windows as there is room for. The head is read in
//! pieces of the vocabulary, whose log-sum-exps are merged.
//!
//! The trait `Engine` is what a device has to do; `cpu` does it with loops and the library for products, `gpu` with kernels of
//! its own. `block.rs` puts a block together from it, `loss.rs` the head, `batch.rs` how windows become tensors.

mod batch;
mod block;
mod cpu;
mod engine;
mod error;
mod feed_forward;
mod gpu;
pub(crate) mod kernels;
mod loss;
mod mixer;
mod non_finite;
mod peak;
mod progress;
mod recurrence;
mod sequential;
mod statistics;
#[cfg(test)]
mod tests;
mod weights;

use crate::checkpoint::Checkpoint;
use crate::device::{self, Backend, Device};
use crate::model::Architecture;

use batch::{Batch, Cut, Span, longest, rows_of};
use engine::Engine;
pub use error::Error;
pub(crate) use peak::PeakProduct;
use progress::Meter;
pub use progress::{Progress, Watch, unwatched};
pub(crate) use sequential::{GoOn, TakeBlock};
pub use statistics::SiteStatistics;
use statistics::{BlockSums, Wanted};
pub(crate) use weights::WeightOverlay;
use weights::WeightReader;

/// A checkpoint ready to run.
#[derive(Debug)]
pub struct Forward<'a> {
    checkpoint: &'a Checkpoint,
    architecture: &'a Architecture,
    device: &'a Device,
    means: bool,
    overlay: Option<&'a dyn WeightOverlay>,
    /// Tokens of a window that go through a block at once; what the device has room for if there is none.
    chunk: Option<usize>,
}

/// Why a pass ended early that hands on what it observes.
enum Ended<X> {
    /// It failed itself.
    Forward(Error),
    /// Whoever was handed it ended it.
    Taken(X),
}

impl<X> From<Error> for Ended<X> {
    fn from(error: Error) -> Self {
        Self::Forward(error)
    }
}

/// What a pass observes, and who is told of a block that all windows have been through.
struct Observer<'o, X> {
    /// By block.
    sums: &'o mut [BlockSums],
    done: &'o mut dyn FnMut(usize, &mut BlockSums) -> Result<(), X>,
}

/// Calls `$work` with the engine of the device, which takes what is `$wanted` of every layer's input.
macro_rules! with_engine {
    ($self:ident, $windows:expr, $wanted:expr, |$engine:ident| $work:expr) => {{
        let architecture = $self.architecture;
        let context = $self.check($windows)?;
        match $self.device.backend() {
            Backend::Cpu(cpu) => {
                let threads = cpu.threads();
                let $engine = cpu::CpuEngine::new(architecture, context, $wanted, threads)?;
                $work
            }
            Backend::Gpu(gpu) => {
                let adapter = gpu.context();
                let $engine = gpu::GpuEngine::new(architecture, context, $wanted, adapter)?;
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
            means: false,
            overlay: None,
            chunk: None,
        }
    }

    /// The same, which takes the means of the inputs, too, if they are wanted.
    #[must_use]
    pub const fn with_means(self, means: bool) -> Self {
        Self { means, ..self }
    }

    /// The same, with these weights in the place of those in the files, where there are any.
    #[must_use]
    pub(crate) const fn with_overlay(self, overlay: Option<&'a dyn WeightOverlay>) -> Self {
        Self { overlay, ..self }
    }

    /// The same, with at most so many tokens of a window through a block at once.
    #[must_use]
    pub const fn in_chunks(self, tokens: usize) -> Self {
        Self {
            chunk: Some(tokens),
            ..self
        }
    }

    /// The statistics of every linear layer's input, summed over all tokens of all windows, in the order of
    /// [`Architecture::sites`].
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn statistics(
        &self,
        windows: &[&[u32]],
        progress: &Watch<'_>,
    ) -> Result<Vec<SiteStatistics>, Error> {
        let mut all = Vec::new();
        let mut take = |of_site| -> Result<(), Error> {
            all.push(of_site);
            Ok(())
        };
        self.statistics_by_block(windows, None, progress, &mut take)?;
        Ok(all)
    }

    /// Has all windows go through all blocks, to see whether their inputs are finite.
    fn observed(&self, windows: &[&[u32]]) -> Result<(), Error> {
        let wanted = Wanted::default();
        with_engine!(self, windows, wanted, |engine| self.sums_on::<_, Error>(
            &engine,
            wanted,
            windows,
            &unwatched,
            &mut |_| Ok(())
        ))
    }

    /// The same, with sketches of so many columns where a rank is given; each is handed to `take` as soon as its block is done
    /// with, so that they need not all be in memory.
    ///
    /// # Errors
    /// Every variant of [`Error`], and what `take` gives.
    pub fn statistics_by_block<E: From<Error>>(
        &self,
        windows: &[&[u32]],
        sketch_rank: Option<usize>,
        progress: &Watch<'_>,
        take: &mut dyn FnMut(SiteStatistics) -> Result<(), E>,
    ) -> Result<(), E> {
        let wanted = self.wanted(sketch_rank);
        let mut take_all = |of_block: Vec<SiteStatistics>| {
            let result = of_block.into_iter().try_for_each(&mut *take);
            result.map_err(Ended::Taken)
        };
        let pass = || -> Result<(), Ended<E>> {
            with_engine!(self, windows, wanted, |engine| self.sums_on(
                &engine,
                wanted,
                windows,
                progress,
                &mut take_all
            ))
        };
        self.ended(pass, windows)
    }

    /// Runs a pass that hands on what it observes, and explains its errors.
    fn ended<X: From<Error>>(
        &self,
        pass: impl FnOnce() -> Result<(), Ended<X>>,
        windows: &[&[u32]],
    ) -> Result<(), X> {
        pass().map_err(|ended| match ended {
            Ended::Forward(error) => self.explained(error, windows).into(),
            Ended::Taken(error) => error,
        })
    }

    /// The statistics of each block's inputs once the blocks before it have the weights that `take` makes of them: it is handed
    /// what was observed of a block, and has the windows go on through that block with other weights. See `sequential.rs`.
    ///
    /// # Errors
    /// Every variant of [`Error`], and what `take` gives.
    pub(crate) fn statistics_on_pruned<E: From<Error>>(
        &self,
        windows: &[&[u32]],
        sketch_rank: Option<usize>,
        progress: &Watch<'_>,
        take: TakeBlock<'_, E>,
    ) -> Result<(), E> {
        let wanted = self.wanted(sketch_rank);
        let mut take_all = |of_block: Vec<SiteStatistics>, go_on: GoOn<'_>| {
            take(of_block, go_on).map_err(Ended::Taken)
        };
        let pass = || -> Result<(), Ended<E>> {
            with_engine!(self, windows, wanted, |engine| {
                let hidden_size = self.architecture.hidden_size;
                sequential::check(tokens_of(windows), hidden_size, engine.hidden_room())?;
                let files = WeightReader::open(self.checkpoint, None)?;
                let batches = self.embed(&engine, &files, windows)?;
                let model = (self.checkpoint, self.architecture);
                sequential::run(&engine, model, wanted, batches, progress, &mut take_all)
            })
        };
        self.ended(pass, windows)
    }

    /// What is observed of every input.
    fn wanted(&self, sketch_rank: Option<usize>) -> Wanted {
        Wanted {
            sums: self.means,
            sketch_rank,
        }
    }

    /// The loss of every token but the first of each window, in nats.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn losses(&self, windows: &[&[u32]], progress: &Watch<'_>) -> Result<Vec<Vec<f32>>, Error> {
        let losses = with_engine!(self, windows, Wanted::default(), |engine| self
            .losses_on(&engine, windows, progress));
        losses.map_err(|error| self.explained(error, windows))
    }

    /// The logits of one window, `[tokens, vocab_size]`: for tests, as they are large.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn logits(&self, window: &[u32]) -> Result<Vec<f32>, Error> {
        with_engine!(self, &[window], Wanted::default(), |engine| self
            .logits_on(&engine, window))
    }

    /// The longest window, if every token and every position has a row in its embedding.
    fn check(&self, windows: &[&[u32]]) -> Result<usize, Error> {
        if let Some(embedding) = &self.architecture.position_embedding
            && longest(windows) > embedding.positions
        {
            return Err(Error::NoPosition {
                tokens: longest(windows),
                positions: embedding.positions,
            });
        }
        let vocab_size = self.architecture.vocab_size;
        let tokens = windows.iter().copied().flatten();
        match tokens.max() {
            Some(&token) if token as usize >= vocab_size => {
                Err(Error::TokenOutOfRange { token, vocab_size })
            }
            _ => self.check_length(longest(windows)),
        }
    }

    /// The length of the longest window, if every rope is known up to there.
    fn check_length(&self, tokens: usize) -> Result<usize, Error> {
        let mut limits = self.architecture.rotaries.iter().filter_map(|r| r.longest);
        match limits.find(|longest| tokens > *longest) {
            Some(longest) => Err(Error::TooLong { tokens, longest }),
            None => Ok(tokens),
        }
    }

    fn sums_on<E: Engine, X: From<Error>>(
        &self,
        engine: &E,
        wanted: Wanted,
        windows: &[&[u32]],
        progress: &Watch<'_>,
        take: &mut dyn FnMut(Vec<SiteStatistics>) -> Result<(), X>,
    ) -> Result<(), X> {
        let architecture = self.architecture;
        let weights = WeightReader::open(self.checkpoint, self.overlay)?;
        let mut sums = vec![BlockSums::default(); architecture.blocks()];
        let mut meter = Meter::new(tokens_of(windows), architecture.blocks(), progress);
        let groups: Vec<_> = self.groups(windows, engine.hidden_room()).collect();
        for (index, group) in groups.iter().enumerate() {
            let is_last = index + 1 == groups.len();
            let mut done = |block, sums: &mut BlockSums| {
                if !is_last {
                    return Ok(());
                }
                let (sites, sums) = (architecture.sites_of(block), std::mem::take(sums));
                take(SiteStatistics::of_block(sites, wanted, sums)?)
            };
            let observer = Observer {
                sums: &mut sums,
                done: &mut done,
            };
            self.blocks(engine, &weights, group, Some(observer), &mut meter)?;
        }
        Ok(())
    }

    fn losses_on<E: Engine>(
        &self,
        engine: &E,
        windows: &[&[u32]],
        progress: &Watch<'_>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let architecture = self.architecture;
        let weights = WeightReader::open(self.checkpoint, self.overlay)?;
        let mut meter = Meter::new(tokens_of(windows), architecture.blocks() + 1, progress);
        let mut losses = Vec::new();
        for group in self.groups(windows, engine.hidden_room()) {
            let batches = self.blocks::<_, Error>(engine, &weights, group, None, &mut meter)?;
            losses.extend(loss::losses(engine, &weights, architecture, batches)?);
            meter.step(tokens_of(group))?;
        }
        Ok(losses)
    }

    fn logits_on<E: Engine>(&self, engine: &E, window: &[u32]) -> Result<Vec<f32>, Error> {
        let architecture = self.architecture;
        let weights = WeightReader::open(self.checkpoint, self.overlay)?;
        let mut meter = Meter::new(window.len(), architecture.blocks(), &unwatched);
        let windows = [window];
        let mut batches = self.blocks::<_, Error>(engine, &weights, &windows, None, &mut meter)?;
        loss::finish(engine, &weights, architecture, &mut batches)?;
        let head = loss::lm_head_part(&weights, architecture, 0, architecture.vocab_size)?;
        let mut logits = Vec::new();
        for chunk in batches.iter().flat_map(|batch| &batch.chunks) {
            logits.extend(engine.logits(&head, &chunk.x)?);
        }
        Ok(logits)
    }

    /// Windows in groups whose hidden states take at most `room` bytes.
    fn groups<'s>(
        &self,
        windows: &'s [&'s [u32]],
        room: usize,
    ) -> impl Iterator<Item = &'s [&'s [u32]]> {
        let context = longest(windows).max(1);
        let bytes = 4 * context * self.architecture.hidden_size;
        windows.chunks((room / bytes).max(1))
    }

    /// How an engine gets windows of at most so many tokens.
    fn cut<E: Engine>(&self, engine: &E, window: usize) -> Cut {
        let cut = engine.cut(window);
        match self.chunk {
            Some(tokens) => Cut {
                tokens: tokens.clamp(1, cut.tokens),
                ..cut
            },
            None => cut,
        }
    }

    /// What the first block reads of some windows.
    fn embed<'w, E: Engine>(
        &self,
        engine: &E,
        weights: &WeightReader<'_>,
        windows: &'w [&'w [u32]],
    ) -> Result<Vec<Batch<'w, E::Tensor>>, Error> {
        let architecture = self.architecture;
        let positions = architecture.position_embedding.as_ref();
        let positions = positions
            .map(|table| weights.read_rows(&table.tensor, table.offset, longest(windows)))
            .transpose()?;
        // Those of the tokens of some spans.
        let positions_of = |spans: &[Span], features: usize| -> Option<Vec<f32>> {
            let positions = positions.as_ref()?;
            let of_span = |span: &Span| {
                let first = span.position * features;
                &positions[first..first + span.rows * features]
            };
            Some(spans.iter().flat_map(of_span).copied().collect())
        };
        let projection = architecture.embedding_projections.as_ref();
        let tensor = |spans: &[Span], tokens: &[&[u32]]| {
            let mut rows = Vec::new();
            for &token in tokens.iter().copied().flatten() {
                rows.extend(weights.read_rows(&architecture.embedding, token as usize, 1)?);
            }
            if architecture.embedding_scale != 1.0 {
                let scale = architecture.embedding_scale;
                rows.iter_mut().for_each(|x: &mut f32| *x *= scale);
            }
            if projection.is_none() {
                let positions = positions_of(spans, architecture.embedding_size);
                for (x, position) in rows.iter_mut().zip(positions.iter().flatten()) {
                    *x += position;
                }
            }
            engine.embed(rows, spans.iter().map(|span| span.rows).sum())
        };
        let cut = self.cut(engine, longest(windows));
        let mut batches = Batch::of(windows, cut, tensor)?;
        if let Some([inwards, _]) = projection {
            // Positions are added behind the projection.
            let projection = engine.load_matrix(weights, inwards)?;
            let features = architecture.hidden_size;
            block::each_chunk(engine, &mut batches, |step, x| {
                let rows = step.spans.iter().map(|span| span.rows).sum();
                let positions = positions_of(step.spans, features);
                let positions = positions.unwrap_or_else(|| vec![0.0; rows * features]);
                let mut sum = engine.embed(positions, rows)?;
                engine.add_product(step, &projection, x, &mut sum)?;
                *x = sum;
                Ok(())
            })?;
        }
        if let Some(norm) = &architecture.embedding_norm {
            let norm = engine.load_norm(weights, norm)?;
            block::each_chunk(engine, &mut batches, |step, x| {
                *x = engine.norm(step, &norm, x)?;
                Ok(())
            })?;
        }
        Ok(batches)
    }

    /// Some windows through the embedding and all blocks; gives their hidden states.
    fn blocks<'w, E: Engine, X: From<Error>>(
        &self,
        engine: &E,
        weights: &WeightReader<'_>,
        windows: &'w [&'w [u32]],
        mut observer: Option<Observer<'_, X>>,
        meter: &mut Meter<'_>,
    ) -> Result<Vec<Batch<'w, E::Tensor>>, X> {
        let architecture = self.architecture;
        let mut batches = self.embed(engine, weights, windows)?;
        let in_flight = engine.in_flight(rows_of(&batches));
        for (index, block) in architecture.blocks.iter().enumerate() {
            let inputs = observer.is_some().then(|| block.input_kinds());
            let block = block::load(engine, weights, block)?;
            // Fetched while this one computes, into the system's memory and not this process's.
            if let Some(next) = architecture.blocks.get(index + 1) {
                block::will_load(weights, next)?;
            }
            for batches in batches.chunks_mut(in_flight) {
                let observed = block::through(engine, &block, inputs.as_deref(), batches, true)?;
                if let Some(observer) = &mut observer {
                    // In the order of the windows, whatever the order they were done in.
                    let sums = &mut observer.sums[index];
                    observed.into_iter().for_each(|of_batch| sums.add(of_batch));
                }
                meter.step(batches.iter().map(Batch::tokens).sum())?;
            }
            if let Some(observer) = &mut observer {
                (observer.done)(index, &mut observer.sums[index])?;
            }
        }
        Ok(batches)
    }
}

/// Tokens of all windows.
fn tokens_of(windows: &[&[u32]]) -> usize {
    windows.iter().map(|window| window.len()).sum()
}

/// Tries on a device what a forward pass needs of it. The CPU needs nothing.
///
/// # Errors
/// [`device::Error::Unfit`] if a kernel gives something else than it should, [`device::Error::Failed`].
pub(crate) fn check(device: &Device) -> Result<(), device::Error> {
    match device.backend() {
        Backend::Cpu(_) => Ok(()),
        Backend::Gpu(gpu) => gpu::check(gpu.context()),
    }
}
