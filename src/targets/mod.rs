//! Which tensors of a checkpoint are pruned, which way they lie, and why the others are not.
//!
//! Every tensor gets a [`Decision`], and every decision against it a [`Reason`] with a sentence: a tool that leaves half a
//! model alone without a word is worse than one that fails. The default set is the linear weights inside the numbered
//! decoder blocks, known by the names in `names.rs`; a name nobody knows is left alone and says so
//! ([`Reason::UnknownName`]).
//!
//! Wishes come as globs over whole tensor names. *Include* globs replace the default set: what matches is pruned if it is
//! a float matrix, embeddings and vision towers too. *Exclude* globs take away. Neither makes a weight out of a norm, a
//! bias or a piece of a quantised tensor.
//!
//! A tensor that would be pruned but for its dtype is [`Decision::Unsupported`], not skipped: the caller refuses the run,
//! as half of it would be missing.

mod axis;
pub(crate) mod names;

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};
use safetensors::Dtype;
use serde_json::Value;

use names::Stored;

/// A tensor, as its file's header describes it.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// The full name.
    pub name: &'a str,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions, slowest first.
    pub shape: &'a [usize],
}

/// What the model's `config.json` says that helps; all of it may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// The architecture: `llama`, `gpt2`, `llama4_text`.
    pub model_type: Option<String>,
    /// Features of the residual stream.
    pub hidden_size: Option<usize>,
}

impl Model {
    /// Reads them out of a `config.json`, or out of the language model's part of it where there are several parts.
    pub fn from_config(config: &Value) -> Self {
        const PARTS: &[&str] = &[
            "text_config",
            "llm_config",
            "language_config",
            "thinker_config",
        ];
        const SIZES: &[&str] = &["hidden_size", "n_embd", "d_model"];
        let outer = config.get("model_type").and_then(Value::as_str);
        let mut part = config;
        // Two levels are the deepest seen: thinker_config, then text_config.
        for _ in 0..2 {
            part = PARTS
                .iter()
                .find_map(|p| part.get(p).filter(|v| v.is_object()))
                .unwrap_or(part);
        }
        let model_type = part.get("model_type").and_then(Value::as_str).or(outer);
        let hidden_size = SIZES
            .iter()
            .find_map(|s| part.get(s).and_then(Value::as_u64));
        Self {
            model_type: model_type.map(str::to_owned),
            hidden_size: hidden_size.and_then(|n| usize::try_from(n).ok()),
        }
    }
}

/// Which axis of a stored weight its inputs run along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[out_features, in_features]`: a row is one output neuron, as in `nn.Linear`.
    OutIn,
    /// `[in_features, out_features]`: a column is one output neuron, as in GPT-2's `Conv1D`.
    InOut,
}

/// A weight to prune.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Matrices in the tensor, one behind the other: 1, or the experts of a fused tensor.
    pub experts: usize,
    /// Output neurons of one matrix.
    pub out_features: usize,
    /// Input features of one matrix: the length of a comparison group, and of the column norms.
    pub in_features: usize,
    /// How each matrix lies.
    pub layout: Layout,
    /// A short label for tables: `q_proj`, `experts.w1`.
    pub kind: String,
}

/// What becomes of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is pruned.
    Prune(Target),
    /// It would be pruned, but for its dtype. A run must not go on as if it were not there.
    Unsupported {
        /// The dtype; BF16, F16 and F32 can be pruned.
        dtype: Dtype,
        /// The label its target would have.
        kind: String,
    },
    /// It is copied as it is.
    Skip(Reason),
}

impl Decision {
    /// The target, of a tensor that is pruned.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Prune(target) => Some(target),
            Self::Unsupported { .. } | Self::Skip(_) => None,
        }
    }
}

/// Why a tensor is left as it is. `Display` gives the sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Token or position embeddings.
    Embedding,
    /// The output layer.
    Head,
    /// A normalisation's weight.
    Norm,
    /// A bias.
    Bias,
    /// A router of a mixture of experts.
    Router,
    /// Of a vision, audio or speech tower, or of what connects it.
    OtherModality,
    /// Outside of the numbered decoder blocks.
    NotInABlock,
    /// In a block, with a name that no rule knows.
    UnknownName,
    /// Not a matrix, nor a stack of experts' matrices that a rule knows.
    NotAMatrix,
    /// A piece of a quantised or packed weight.
    Quantized,
    /// A matrix the input axis of which nothing tells.
    AxisUnknown,
    /// Taken away by a glob.
    Excluded {
        /// The glob.
        glob: String,
    },
    /// There are include globs, and none matches.
    NotIncluded,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedding => "an embedding; include it by name to prune it",
            Self::Head => "the output layer; include it by name to prune it",
            Self::Norm => "a normalisation weight, never pruned",
            Self::Bias => "a bias, never pruned",
            Self::Router => "a router, which chooses experts; include it by name to prune it",
            Self::OtherModality => "of a vision or audio part; include it by name to prune it",
            Self::NotInABlock => "outside the decoder blocks; include it by name to prune it",
            Self::UnknownName => "a name no rule knows; include it by name if it is a linear layer",
            Self::NotAMatrix => "not a matrix",
            Self::Quantized => "a piece of a quantised weight; prune the model before it is quantised",
            Self::AxisUnknown => {
                "nothing says which axis is its input: put the model's config.json, with its model_type and hidden_size, \
                 beside the weights"
            }
            Self::Excluded { glob } => return write!(f, "excluded by `{}`", glob.escape_debug()),
            Self::NotIncluded => "matched by no include glob",
        })
    }
}

/// A wish that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A glob is no glob.
    #[error("`{}` is not a glob: {reason}. `*` matches anything, `?` one character, `[ab]` one of several, `{{a,b}}` either", glob.escape_debug())]
    Glob {
        /// What was given.
        glob: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Which tensors are wished for, by name.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    glob: String,
    matcher: GlobMatcher,
}

impl Pattern {
    fn new(glob: &str) -> Result<Self, Error> {
        // What globset would read differently on Windows is set: a name is not a path.
        let built = GlobBuilder::new(glob)
            .literal_separator(false)
            .backslash_escape(true)
            .build();
        let built = built.map_err(|e| Error::Glob {
            glob: glob.to_owned(),
            reason: e.kind().to_string(),
        })?;
        Ok(Self {
            glob: glob.to_owned(),
            matcher: built.compile_matcher(),
        })
    }

    fn matches(&self, name: &str) -> bool {
        self.matcher.is_match(name)
    }
}

impl Selection {
    /// Globs over whole tensor names, `*` matching dots too. No `include` means the default set.
    ///
    /// # Errors
    /// [`Error::Glob`] for the first that is no glob.
    pub fn new<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Self, Error> {
        let patterns = |globs: &[S]| {
            globs
                .iter()
                .map(|g| Pattern::new(g.as_ref()))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            include: patterns(include)?,
            exclude: patterns(exclude)?,
        })
    }
}

/// How often a glob matched; 0 means that it is misspelt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobUse {
    /// The glob.
    pub glob: String,
    /// Tensors with a name that it matches.
    pub matched: usize,
    /// Of these, the ones that are pruned.
    pub pruned: usize,
}

/// The decisions over a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One per tensor, in the order given.
    pub decisions: Vec<Decision>,
    /// The include globs, in the order given.
    pub include: Vec<GlobUse>,
    /// The exclude globs, in the order given.
    pub exclude: Vec<GlobUse>,
}

/// Decides over all tensors of a checkpoint (over all its files at once: they are each other's witnesses).
pub fn plan(tensors: &[Tensor<'_>], model: &Model, selection: &Selection) -> Plan {
    let mut witnesses = axis::Witnesses::default();
    for tensor in tensors {
        if let Some(rule) = names::rule(tensor.name) {
            witnesses.hear(rule.stored, tensor.shape, model);
        }
    }
    let decisions: Vec<_> = tensors
        .iter()
        .map(|t| decide(t, model, selection, &witnesses))
        .collect();
    let uses = |patterns: &[Pattern]| {
        let count = |pattern: &Pattern| {
            let matched = tensors
                .iter()
                .zip(&decisions)
                .filter(|(t, _)| pattern.matches(t.name));
            let (mut all, mut pruned) = (0, 0);
            for (_, decision) in matched {
                all += 1;
                pruned += usize::from(decision.target().is_some());
            }
            GlobUse {
                glob: pattern.glob.clone(),
                matched: all,
                pruned,
            }
        };
        patterns.iter().map(count).collect()
    };
    let (include, exclude) = (uses(&selection.include), uses(&selection.exclude));
    Plan {
        decisions,
        include,
        exclude,
    }
}

/// Decides over one tensor alone. [`plan`] knows more: it may settle by its neighbours what is [`Reason::AxisUnknown`] here.
pub fn classify(tensor: &Tensor<'_>, model: &Model, selection: &Selection) -> Decision {
    decide(tensor, model, selection, &axis::Witnesses::default())
}

fn decide(
    tensor: &Tensor<'_>,
    model: &Model,
    selection: &Selection,
    witnesses: &axis::Witnesses,
) -> Decision {
    let Tensor { name, dtype, shape } = *tensor;
    if let Some(reason) = names::never(name) {
        return Decision::Skip(reason);
    }
    let rule = names::rule(name);
    if selection.include.is_empty() {
        if let Some(reason) = names::unless_asked(name) {
            return Decision::Skip(reason);
        }
        if rule.is_none() && shape.len() == 2 {
            return Decision::Skip(Reason::UnknownName);
        }
    } else if !selection.include.iter().any(|p| p.matches(name)) {
        return Decision::Skip(Reason::NotIncluded);
    }
    let stored = rule.map_or(Stored::Linear, |rule| rule.stored);
    let (experts, first, last) = match (stored, shape) {
        (Stored::Linear | Stored::MaybeConv1d(_), &[first, last]) => (1, first, last),
        (Stored::FusedExperts(_), &[experts, first, last]) => (experts, first, last),
        _ => return Decision::Skip(Reason::NotAMatrix),
    };
    if shape.contains(&0) {
        return Decision::Skip(Reason::NotAMatrix);
    }
    // Only now: an excluded tensor is one that would have been pruned, and one of a strange dtype may be excluded.
    if let Some(pattern) = selection.exclude.iter().find(|p| p.matches(name)) {
        return Decision::Skip(Reason::Excluded {
            glob: pattern.glob.clone(),
        });
    }
    let kind = names::kind(name);
    if !matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32) {
        return Decision::Unsupported { dtype, kind };
    }
    let Some(layout) = axis::layout(stored, shape, model, witnesses) else {
        return Decision::Skip(Reason::AxisUnknown);
    };
    let (out_features, in_features) = match layout {
        Layout::OutIn => (first, last),
        Layout::InOut => (last, first),
    };
    Decision::Prune(Target {
        experts,
        out_features,
        in_features,
        layout,
        kind,
    })
}

#[cfg(test)]
mod tests;
