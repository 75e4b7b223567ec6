//! Why a tensor is not pruned, and which of the reasons a name alone gives.

use std::fmt;

use super::model::Model;
use crate::names::grammar::{block, is_of_side_decoder, of_another_modality};
use crate::names::packed::is_of_quantisation;
use crate::untrusted::shown;

/// Why a tensor is not pruned. `Display` gives a sentence for the user.
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
    /// A router of a mixture of experts, or what chooses the tokens to attend to.
    Router,
    /// A convolution, a decay or another parameter of a mixer, which is no linear layer.
    NotLinear,
    /// Part of a block that predicts further tokens, which no calibration reaches.
    FurtherPrediction,
    /// Part of a vision, audio or speech tower, or of what connects it to the language model.
    OtherModality,
    /// Outside the numbered decoder blocks.
    NotInABlock,
    /// In a block, with a name that no rule knows.
    UnknownName,
    /// Not a matrix, nor a stack of experts' matrices that a rule knows.
    NotAMatrix,
    /// A piece of a quantised or packed weight.
    Quantized,
    /// Nothing says which axis of the matrix is its input.
    AxisUnknown,
    /// Nothing says how many experts' matrices lie one below the other in it.
    ExpertsUnknown,
    /// An exclude glob matches it.
    Excluded {
        /// The glob as it was given.
        glob: String,
    },
    /// There are include globs, and none of them matches it.
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
            Self::NotLinear => "a convolution or a decay, not a linear layer",
            Self::FurtherPrediction => {
                "of a block that predicts further tokens, which no calibration reaches; include it by name to prune it"
            }
            Self::OtherModality => "of a vision or audio part; include it by name to prune it",
            Self::NotInABlock => "outside the decoder blocks; include it by name to prune it",
            Self::UnknownName => "an unknown name; include it by name if it is a linear layer",
            Self::NotAMatrix => "not a matrix",
            Self::Quantized => "a piece of a quantised weight; prune the model before it is quantised",
            Self::AxisUnknown => {
                "cannot tell which axis is the input; put the model's config.json, with model_type and hidden_size, next to the weights"
            }
            Self::ExpertsUnknown => {
                "cannot tell how many experts it holds; put the model's config.json next to the weights"
            }
            Self::Excluded { glob } => return write!(f, "excluded by `{}`", shown(glob)),
            Self::NotIncluded => "no include glob matches it",
        })
    }
}

/// The reason that no glob can override: the name says that this is not the weight of a linear layer.
pub(super) fn never(name: &str) -> Option<Reason> {
    let last = name.rsplit('.').next().unwrap_or(name);
    let module = name
        .strip_suffix(".weight")
        .unwrap_or(name)
        .rsplit('.')
        .next()
        .unwrap_or(name);
    if is_of_quantisation(name) {
        Some(Reason::Quantized)
    } else if last == "bias" || last.ends_with("_bias") {
        Some(Reason::Bias)
    } else if module.contains("norm") || module == "ln" || module.starts_with("ln_") {
        Some(Reason::Norm)
    } else {
        None
    }
}

/// The reason to leave a weight alone unless it is asked for by name.
pub(super) fn unless_asked(name: &str, model: &Model) -> Option<Reason> {
    if of_another_modality(name) {
        return Some(Reason::OtherModality);
    }
    if is_of_side_decoder(name) || is_of_further_block(name, model) {
        return Some(Reason::FurtherPrediction);
    }
    let mut parts = name.split('.');
    let Some(block) = block(name) else {
        return Some(
            if parts
                .clone()
                .any(|p| p == "wte" || p == "wpe" || (p.contains("embed") && p != "embed_out"))
            {
                Reason::Embedding
            } else if parts.any(|p| HEADS.contains(&p)) {
                Reason::Head
            } else {
                Reason::NotInABlock
            },
        );
    };
    let tail = block.tail.strip_suffix(".weight").unwrap_or(block.tail);
    let last = tail.rsplit('.').next().unwrap_or(tail);
    let has = |wanted: &[&str]| tail.split('.').any(|part| wanted.contains(&part));
    if CHOOSERS.contains(&last) || has(&["router", "indexer"]) || tail.starts_with("mlp.gate.") {
        Some(Reason::Router)
    } else if last.ends_with("conv1d")
        || last.starts_with("conv_")
        || NOT_LINEAR.contains(&last)
        || has(&["rg_lru"])
    {
        Some(Reason::NotLinear)
    } else {
        None
    }
}

/// Whether a tensor lies in one of the blocks behind the decoder's that predict further tokens.
fn is_of_further_block(name: &str, model: &Model) -> bool {
    let number = block(name).and_then(|block| block.number.parse().ok());
    number.is_some_and(|number| model.further_blocks.contains(&number))
}

/// Names of output layers.
const HEADS: &[&str] = &[
    "lm_head",
    "embed_out",
    "output_layer",
    "output",
    "score",
    "classifier",
    "head",
];

/// Last parts of the names of small layers that choose: experts, or the tokens to attend to.
const CHOOSERS: &[&str] = &["gate", "shared_expert_gate", "modality_router"];

/// Last parts of the names of a mixer's parameters that are no linear layers, though some of them are matrices.
const NOT_LINEAR: &[&str] = &[
    "conv",
    "A_log",
    "D",
    "dt_bias",
    "slope_rate",
    "correction_coefs",
    "prediction_coefs",
    "query_decay",
    "key_decay",
    "diagonal_decay",
    "time_decay",
    "time_first",
    "time_mix_key",
    "time_mix_value",
    "time_mix_receptance",
];
