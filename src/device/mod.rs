//! Devices: where rows of weights become masks. The CPU and every wgpu adapter answer the same question with the same
//! bits.
//!
//! A [`Device`] is opened by a [`DeviceChoice`]; wgpu is spoken here and in `forward/gpu.rs` alone. Devices know nothing of files or
//! models: they see [`Rows`] and a [`Recipe`].

mod adapter;
mod choice;
pub(crate) mod context;
pub(crate) mod cpu;
pub(crate) mod gpu;
mod probe;
pub mod timing;
mod work;

pub use choice::{DeviceChoice, DeviceInfo, DeviceKind, devices};

use crate::dtype::Dtype;
use crate::mask::Mask;
use crate::selection::Selection;

/// The most weights a row may have: what the sums' width and, with the smallest blocks, the dispatch sizes allow.
pub const MAX_IN_FEATURES: usize = 1 << 19;

/// What can go wrong with a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter fits the choice.
    #[error(
        "no device fits --device {choice}: {found}. `swiftprune-wgpu devices` lists them; --device cpu always works"
    )]
    NoAdapter {
        /// What was asked for.
        choice: String,
        /// What there is.
        found: String,
    },
    /// The adapter has less than the passes need.
    #[error("{device} cannot run the passes: {reason}. Use --device cpu")]
    Unfit {
        /// The adapter.
        device: String,
        /// What it lacks.
        reason: String,
    },
    /// The driver reported an error, ran out of memory or lost the device; nothing it returned is used.
    #[error("{device} failed: {reason}. Nothing was written; --device cpu gives the same result")]
    Failed {
        /// The adapter.
        device: String,
        /// The driver's words.
        reason: String,
    },
}

/// Rows of weights: a whole matrix, or the part of one that fits a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// How a weight is stored.
    pub dtype: Dtype,
    /// Weights a row.
    pub in_features: usize,
    /// Whole rows, row-major; aligned to the dtype's size.
    pub bytes: &'a [u8],
}

impl Rows<'_> {
    /// How many rows there are.
    #[must_use]
    pub const fn rows(&self) -> usize {
        let row = self.in_features * self.dtype.size();
        match self.bytes.len().checked_div(row) {
            Some(rows) => rows,
            None => 0,
        }
    }
}

/// The host's part of the score of one tensor.
#[derive(Clone, Debug, Default)]
pub struct Factors {
    /// `f_j`, `[in_features]`.
    pub column: Vec<f32>,
    /// RIA's terms.
    pub terms: Option<Terms>,
}

/// RIA's reciprocal sums.
#[derive(Clone, Debug)]
pub struct Terms {
    /// `c_j`, `[in_features]`.
    pub column: Vec<f32>,
    /// `r_i`, one for each row of the tensor.
    pub row: Vec<f32>,
}

/// How the rows of one tensor become a mask.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The rule.
    pub selection: Selection,
    /// The score.
    pub factors: Factors,
}

/// A pass of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Weights to order keys.
    Score,
    /// Order keys to threshold keys, for the recipes that have them.
    Ewma,
    /// Keys to the mask.
    Select,
}

/// Fixed-point sums of `|W|`, in units of 2^-36.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Over the rows: `[in_features]`.
    pub column: Vec<u64>,
    /// Over the columns: one for each row.
    pub row: Vec<u64>,
}

/// A device that is ready.
#[derive(Debug)]
pub enum Device {
    /// This machine's cores.
    Cpu(cpu::Cpu),
    /// An adapter through wgpu.
    Gpu(Box<gpu::Gpu>),
}

impl Device {
    /// Opens what was chosen. An adapter computes a few awkward rows first, and is refused if they differ from the CPU's.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] when nothing fits, [`Error::Unfit`] or [`Error::Failed`] when the adapter does not come up.
    pub fn open(choice: &DeviceChoice) -> Result<Self, Error> {
        choice::open(choice, true)
    }

    /// As [`Self::open`] without the rows: to find out where an adapter differs.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_untried(choice: &DeviceChoice) -> Result<Self, Error> {
        choice::open(choice, false)
    }

    /// The CPU with so many threads; an adapter, or `None`, is left as it is.
    #[must_use]
    pub fn with_threads(self, threads: Option<usize>) -> Self {
        match (self, threads) {
            (Self::Cpu(_), Some(threads)) => Self::Cpu(cpu::Cpu::with_threads(threads)),
            (device, _) => device,
        }
    }

    /// Its name, back end, kind and driver.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        match self {
            Self::Cpu(cpu) => cpu.info(),
            Self::Gpu(gpu) => &gpu.context().info,
        }
    }

    /// The mask of these rows, which begin at row `first_row` of the tensor that the recipe is for.
    ///
    /// # Errors
    /// [`Error::Failed`] when the driver fails. The CPU does not.
    pub fn mask(&self, rows: Rows<'_>, first_row: usize, recipe: &Recipe) -> Result<Mask, Error> {
        match self {
            Self::Cpu(_) => Ok(cpu::mask(rows, first_row, recipe)),
            Self::Gpu(gpu) => gpu.mask(rows, first_row, recipe),
        }
    }

    /// What the passes of a recipe give one by one, up to and with `last`: order keys, or threshold keys biased by 32768 (a
    /// key a weight), or the mask's words. For tests: [`Self::mask`] does all in one.
    ///
    /// # Errors
    /// As [`Self::mask`].
    pub fn alone(
        &self,
        rows: Rows<'_>,
        first_row: usize,
        recipe: &Recipe,
        last: Step,
    ) -> Result<Vec<u32>, Error> {
        match self {
            Self::Cpu(_) => Ok(cpu::alone(rows, first_row, recipe, last)),
            Self::Gpu(gpu) => gpu.alone(rows, first_row, recipe, last),
        }
    }

    /// The sums of `|W|` over these rows.
    ///
    /// # Errors
    /// As [`Self::mask`].
    pub fn sums(&self, rows: Rows<'_>) -> Result<Sums, Error> {
        match self {
            Self::Cpu(_) => Ok(cpu::sums(rows)),
            Self::Gpu(gpu) => gpu.sums(rows),
        }
    }
}
