//! A whole model as data.

use super::block::DecoderBlock;
use super::position::{Alibi, PositionEmbedding};
use super::rotary::Rotary;
use super::tensors::{Linear, NormTensors};

/// What a model computes. [`Architecture::of`] reads it from a checkpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Architecture {
    /// As config.json calls it.
    pub model_type: &'static str,
    /// Features of the residual stream.
    pub hidden_size: usize,
    /// Tokens it knows; rows of the embedding.
    pub vocab_size: usize,
    /// The longest context it was made for, where config.json says.
    pub max_context: Option<usize>,
    /// The tensor that tokens are looked up in, `[vocab_size, embedding_size]`.
    pub(crate) embedding: String,
    /// Features of its rows, and of those of the head: mostly `hidden_size`.
    pub(crate) embedding_size: usize,
    /// From these to the residual stream, and back from it to the head, where they are others than those of the stream.
    pub(crate) embedding_projections: Option<[Linear; 2]>,
    /// What the embedding's rows are multiplied by.
    pub(crate) embedding_scale: f32,
    /// The embedding of positions that is added to it.
    pub(crate) position_embedding: Option<PositionEmbedding>,
    /// The norm between the embedding and the first block.
    pub(crate) embedding_norm: Option<NormTensors>,
    /// The ropes; attention refers to them by index.
    pub(crate) rotaries: Vec<Rotary>,
    /// The biases of the attention that has them.
    pub(crate) alibi: Option<Alibi>,
    /// What the names of the blocks' tensors begin with, before the number of the block.
    pub(crate) block_prefix: String,
    /// The blocks, in order.
    pub(crate) blocks: Vec<DecoderBlock>,
    /// The norm before the head.
    pub(crate) final_norm: NormTensors,
    /// The head, `[vocab_size, embedding_size]`: the embedding again where they are tied.
    pub(crate) lm_head: String,
    /// What is added to the logits, `[vocab_size]`.
    pub(crate) lm_head_bias: Option<String>,
    /// What the logits are multiplied by.
    pub(crate) logit_scale: f32,
    /// What the logits so scaled are kept within: `cap tanh(l / cap)`.
    pub(crate) logit_soft_cap: Option<f32>,
}

/// One of the distinct inputs of a block's linear layers: a place where activations are observed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Site {
    /// The block.
    pub block: usize,
    /// What the input is, in words.
    pub label: String,
    /// Features of the input.
    pub in_features: usize,
    /// The weights, by name, that are multiplied by it: one, or several that read the same input.
    pub readers: Vec<String>,
    /// The expert that it is the input of: it sees the tokens that are routed to it. Where a weight holds the matrices of
    /// all experts, it is a reader at a site an expert.
    pub expert: Option<usize>,
}

impl Architecture {
    /// Decoder blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The distinct inputs of the linear layers, block by block, in the order in which the forward pass comes to them.
    pub fn sites(&self) -> impl Iterator<Item = Site> + '_ {
        (0..self.blocks()).flat_map(|block| self.sites_of(block))
    }

    /// Those of one block.
    pub(crate) fn sites_of(&self, block: usize) -> impl Iterator<Item = Site> + '_ {
        let inputs = self.blocks[block].inputs().into_iter();
        inputs.map(move |input| {
            let mut readers: Vec<String> = Vec::new();
            for layer in &input.layers {
                // Layers that are stored as one tensor are one reader.
                if !readers.contains(&layer.weight) {
                    readers.push(layer.weight.clone());
                }
            }
            Site {
                block,
                in_features: input.layers[0].in_features,
                expert: input.expert(),
                label: input.label,
                readers,
            }
        })
    }
}
