//! Calibration: the column norms of a model's activations on some text, with where they come from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::checkpoint::Checkpoint;
use crate::device::{Device, DeviceKind};
use crate::error::Kind;
use crate::forward::{self, Forward, GoOn, SiteStatistics};
use crate::model::{self, Architecture};
use crate::norms::{self, Coverage, Format, Norms, Provenance, Sketches};
use crate::text;

pub use crate::forward::{Error as ForwardError, Progress, Watch, unwatched};
pub use crate::model::Error as ModelError;
pub use crate::text::{
    Error as TextError, MAX_TEXT, Prefix, TOKENIZER_THREAD, Text, windows_of, windows_said,
};

/// Tokens that are enough: twice as many change the perplexity of the pruned model by less than the choice of text.
pub const DEFAULT_TOKENS: usize = 4096;

pub use crate::sketch::MAX_RANK;

/// Tokens a window, unless the model was made for fewer.
pub const DEFAULT_CONTEXT: usize = 512;

/// Why a model could not be calibrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be run.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The text cannot be used.
    #[error(transparent)]
    Text(#[from] text::Error),
    /// The forward pass failed.
    #[error(transparent)]
    Forward(#[from] forward::Error),
    /// The norms cannot be kept.
    #[error(transparent)]
    Norms(#[from] norms::Error),
    /// Windows without room for what the tokenizer puts before a text, and text.
    #[error("a window of {context} is too short: windows have {wanted} tokens at least, {why}")]
    ShortWindow {
        /// What was asked, or what the model was made for.
        context: usize,
        /// The shortest that is possible.
        wanted: usize,
        /// What they must have room for.
        why: String,
    },
    /// Windows longer than the model was made for.
    #[error(
        "a window of {context} tokens is longer than the model's maximum of {max} (max_position_embeddings)"
    )]
    Context {
        /// What was asked.
        context: usize,
        /// What is possible.
        max: usize,
    },
    /// Too few tokens to predict one.
    #[error(
        "{tokens} token is not enough to evaluate on, as the first token of each window is not predicted; an evaluation takes 2 \
         tokens or more"
    )]
    FewTokens {
        /// What was asked.
        tokens: usize,
    },
}

impl Error {
    /// What the error means for whoever asked.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Context { .. } | Self::ShortWindow { .. } | Self::FewTokens { .. } => Kind::Usage,
            _ => Kind::Failed,
        }
    }

    /// Whether nothing failed: whoever watched the forward pass did not let it go on.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        matches!(self, Self::Forward(ForwardError::Stopped))
    }
}

/// A calibration that is ready to run: everything that can be wrong with the request has been checked.
#[derive(Clone, Debug)]
pub struct Calibration {
    architecture: Architecture,
    text: Text,
    prefix: Prefix,
    windows: Vec<Vec<u32>>,
    context: usize,
    sketch: Option<usize>,
    means: bool,
    /// Where sketches wait.
    beside: Option<PathBuf>,
}

impl Calibration {
    /// Reads the model's description and makes tokens of the text: at most `tokens` of them, in windows of `context`
    /// ([`DEFAULT_CONTEXT`] or what the model was made for, if none is given), each of which begins with what the tokenizer puts
    /// before a text.
    ///
    /// # Errors
    /// Every variant of [`Error`] but [`Error::Forward`].
    pub fn new(
        checkpoint: &Checkpoint,
        text: Text,
        tokens: usize,
        context: Option<usize>,
    ) -> Result<Self, Error> {
        let architecture = Architecture::of(checkpoint)?;
        let context = context_of(&architecture, context)?;
        let first = text::tokenize(checkpoint, &text, tokens)?;
        check_window(context, 1, &first.prefix)?;
        let windows = first.windows(context, tokens);
        if windows.is_empty() {
            return Err(Error::Text(text::Error::TooShort {
                text: text.name,
                found: 0,
                wanted: 1,
            }));
        }
        Ok(Self {
            architecture,
            text,
            prefix: first.prefix,
            windows,
            context,
            sketch: None,
            means: false,
            beside: None,
        })
    }

    /// The same with sketches of so many columns beside the norms, at most [`MAX_RANK`].
    #[must_use]
    pub fn with_sketch(self, rank: Option<usize>) -> Self {
        Self {
            sketch: rank.map(|rank| rank.clamp(1, MAX_RANK)),
            ..self
        }
    }

    /// The same with its sketches in an unnamed file beside this path, where the run's output will be and is room for it; without
    /// it, they are in a directory for temporary files.
    #[must_use]
    pub fn with_sketches_beside(self, output: &Path) -> Self {
        let directory = match output.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        Self {
            beside: Some(directory.to_path_buf()),
            ..self
        }
    }

    /// The same with the means of the inputs beside the norms, if they are wanted.
    #[must_use]
    pub fn with_means(self, means: bool) -> Self {
        Self { means, ..self }
    }

    /// What every window begins with.
    #[must_use]
    pub const fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Tokens that will be run: fewer than asked for where the text has no more.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.windows.iter().map(Vec::len).sum()
    }

    /// Tokens a window.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &Text {
        &self.text
    }

    /// Runs the model on `device`.
    ///
    /// # Errors
    /// [`Error::Forward`].
    pub fn run(
        &self,
        checkpoint: &Checkpoint,
        device: &Device,
        progress: &Watch<'_>,
    ) -> Result<Norms, Error> {
        let mut all = self.nothing_yet(checkpoint, device)?;
        let mut take = |of_site| all.take(of_site);
        let windows = self.windows();
        self.forward(checkpoint, device).statistics_by_block(
            &windows,
            self.sketch,
            progress,
            &mut take,
        )?;
        all.norms()
    }

    /// Runs the model on `device`, each block on what the blocks before it give once they are pruned: `prune` is handed the norms
    /// of one block, and has the model go on with that block's weights pruned by them.
    ///
    /// # Errors
    /// [`Error::Forward`], and what `prune` gives.
    pub(crate) fn run_on_pruned<E: From<Error> + From<ForwardError>>(
        &self,
        checkpoint: &Checkpoint,
        device: &Device,
        progress: &Watch<'_>,
        prune: &mut dyn FnMut(Norms, GoOn<'_>) -> Result<(), E>,
    ) -> Result<Norms, E> {
        let mut all = self.nothing_yet(checkpoint, device)?;
        all.norms
            .source
            .metadata
            .insert("sequential".to_owned(), "true".to_owned());
        let mut take = |of_block: Vec<SiteStatistics>, go_on: GoOn<'_>| {
            let mut block = Measured::new(all.norms.source.clone(), None);
            for of_site in of_block {
                block.take(of_site.clone())?;
                all.take(of_site)?;
            }
            let mut block = block.norms()?;
            // The file is the same, and has those of this block by now.
            block.sketches.clone_from(&all.norms.sketches);
            prune(block, go_on)
        };
        let windows = self.windows();
        self.forward(checkpoint, device).statistics_on_pruned(
            &windows,
            self.sketch,
            progress,
            &mut take,
        )?;
        Ok(all.norms()?)
    }

    fn windows(&self) -> Vec<&[u32]> {
        self.windows.iter().map(Vec::as_slice).collect()
    }

    fn forward<'a>(&'a self, checkpoint: &'a Checkpoint, device: &'a Device) -> Forward<'a> {
        Forward::new(checkpoint, &self.architecture, device).with_means(self.means)
    }

    /// Norms of nothing, to be filled by a pass on `device`.
    fn nothing_yet(&self, checkpoint: &Checkpoint, device: &Device) -> Result<Measured, Error> {
        let weights = checkpoint.source.weights();
        let path = weights.path();
        let sketches = self
            .sketch
            .map(|rank| Sketches::measured(path, rank, self.beside.as_deref()));
        let mut source = self.provenance(checkpoint);
        let info = device.info();
        let device = match info.kind {
            DeviceKind::Cpu => format!("CPU ({})", std::env::consts::ARCH),
            _ => format!("{info}, {}", info.driver),
        };
        let facts = &mut source.metadata;
        facts.insert("device".to_owned(), device + ", f32");
        Ok(Measured::new(source, sketches.transpose()?))
    }

    /// What it will measure, so that a plan can be checked before it runs.
    #[must_use]
    pub fn coverage(&self, checkpoint: &Checkpoint) -> Coverage {
        let mut in_features = BTreeMap::new();
        for site in self.architecture.sites() {
            for weight in site.readers {
                in_features.insert(weight, site.in_features);
            }
        }
        let model = checkpoint.source.weights().path().to_path_buf();
        Coverage::new(model, in_features, self.tokens(), self.sketch)
    }

    fn provenance(&self, checkpoint: &Checkpoint) -> Provenance {
        let facts = [
            ("text", self.text.name.clone()),
            ("text_sha256", self.text.sha256()),
            ("context", self.context.to_string()),
            ("prefix", self.prefix.to_string()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        Provenance {
            path: checkpoint.source.weights().path().to_path_buf(),
            format: Format::Measured,
            tokens: Some(self.tokens() as u64),
            metadata: facts.map(|(key, value)| (key.to_owned(), value)).into(),
        }
    }
}

/// Norms that are being measured, site by site.
struct Measured {
    norms: Norms,
    /// Of experts, the rows and the tokens: a weight may hold several, whose sites come one after the other.
    of_experts: BTreeMap<String, (Vec<f32>, Vec<u64>)>,
    means: BTreeMap<String, Vec<f32>>,
}

impl Measured {
    fn new(source: Provenance, sketches: Option<Sketches>) -> Self {
        let mut norms = Norms::new(source);
        norms.sketches = sketches;
        Self {
            norms,
            of_experts: BTreeMap::new(),
            means: BTreeMap::new(),
        }
    }

    /// Adds what was observed of one input, for all the weights that read it.
    fn take(&mut self, of_site: SiteStatistics) -> Result<(), Error> {
        if let (Some(sketches), Some(sketch)) = (&mut self.norms.sketches, &of_site.sketch) {
            sketches.add(&of_site.site.readers, sketch)?;
        }
        for weight in of_site.site.readers {
            if let Some(of_site) = &of_site.means {
                self.means
                    .entry(weight.clone())
                    .or_default()
                    .extend(of_site);
            }
            if of_site.site.expert.is_some() {
                let (rows, tokens) = self.of_experts.entry(weight).or_default();
                rows.extend(&of_site.column_norms);
                tokens.push(of_site.tokens);
            } else {
                self.norms.insert(weight, of_site.column_norms.clone())?;
            }
        }
        Ok(())
    }

    /// All of it.
    fn norms(mut self) -> Result<Norms, Error> {
        for (weight, (rows, tokens)) in self.of_experts {
            self.norms.insert_experts(weight, rows, tokens)?;
        }
        for (weight, means) in self.means {
            self.norms.insert_means(&weight, means)?;
        }
        Ok(self.norms)
    }
}

/// The window that was asked for, or the default; never longer than the model was made for.
pub(crate) fn context_of(
    architecture: &Architecture,
    asked: Option<usize>,
) -> Result<usize, Error> {
    match (asked, architecture.max_context) {
        (Some(context), Some(max)) if context > max => Err(Error::Context { context, max }),
        (Some(context), _) => Ok(context.max(1)),
        (None, max) => Ok(DEFAULT_CONTEXT.min(max.unwrap_or(DEFAULT_CONTEXT))),
    }
}

/// Refuses windows that have no room for so many tokens of text behind the prefix.
pub(crate) fn check_window(context: usize, of_text: usize, prefix: &Prefix) -> Result<(), Error> {
    let wanted = prefix.ids().len() + of_text;
    if context >= wanted {
        return Ok(());
    }
    let why = if prefix.is_empty() {
        "as the first is not predicted".to_owned()
    } else {
        format!("as each begins with {prefix}, which the tokenizer puts before a text")
    };
    Err(Error::ShortWindow {
        context,
        wanted,
        why,
    })
}
