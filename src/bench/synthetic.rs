//! Checkpoints of random bf16 weights in the shapes of known models, with norms and a tokenizer, to measure on.
//!
//! Weights are near enough to a normal distribution for every pass to do its usual work; the same bytes come out each
//! time.

use std::io;
use std::path::Path;

use crate::checkpoint::{Header, OutputOptions, TensorSpec, Writer};
use crate::dtype::StoredDtype;
use crate::fixtures::Random;
use crate::norms::{Format, Norms, Provenance};

/// Tokens that TinyLlama-1.1B knows.
pub const VOCABULARY: usize = 32000;

/// The tokenizer of `examples/tiny-llama`, which is written beside every checkpoint that has room for its tokens.
const TOKENIZER: &[u8] = include_bytes!("../../examples/tiny-llama/tokenizer.json");

/// Tokens of the tokenizer.
pub const TOKENIZER_VOCABULARY: usize = 2048;

/// Bytes of weights that are made at a time.
const PART: usize = 1 << 20;

/// What a llama is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shape {
    /// Features between the blocks.
    pub hidden: usize,
    /// Features within the feed-forward.
    pub intermediate: usize,
    /// Features of the keys, and of the values.
    pub key_value: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Decoder blocks.
    pub layers: usize,
    /// Rows of the embedding and of the head.
    pub vocabulary: usize,
}

impl Shape {
    /// TinyLlama-1.1B's, of so many of its 22 layers. `vocabulary` is its [`VOCABULARY`], or another where as large a share of a
    /// larger or smaller model is not to be pruned. A layer is 88 MB, embedding and head 262 MB.
    #[must_use]
    pub const fn tiny_llama(layers: usize, vocabulary: usize) -> Self {
        Self {
            hidden: 2048,
            intermediate: 5632,
            key_value: 256,
            heads: 32,
            layers,
            vocabulary,
        }
    }

    /// SmolLM2-135M's, of so many of its 30 layers, with a vocabulary of [`TOKENIZER_VOCABULARY`]. A layer is 7 MB.
    #[must_use]
    pub const fn smollm2(layers: usize) -> Self {
        Self {
            hidden: 576,
            intermediate: 1536,
            key_value: 192,
            heads: 9,
            layers,
            vocabulary: TOKENIZER_VOCABULARY,
        }
    }

    /// Weights of its linear layers, without embedding and head.
    #[must_use]
    pub const fn linear_weights(&self) -> usize {
        let Self {
            hidden,
            intermediate,
            key_value,
            ..
        } = *self;
        self.layers * (2 * hidden + 2 * key_value + 3 * intermediate) * hidden
    }

    /// Every tensor, in the order of the file.
    fn tensors(&self) -> Vec<TensorSpec> {
        let Self {
            hidden,
            intermediate,
            key_value,
            vocabulary,
            ..
        } = *self;
        let tensor =
            |name: String, shape: &[usize]| TensorSpec::new(name, StoredDtype::Bf16, shape.into());
        let mut tensors = vec![tensor(
            "model.embed_tokens.weight".to_owned(),
            &[vocabulary, hidden],
        )];
        for layer in 0..self.layers {
            let linears = [
                ("self_attn.q_proj", hidden, hidden),
                ("self_attn.k_proj", key_value, hidden),
                ("self_attn.v_proj", key_value, hidden),
                ("self_attn.o_proj", hidden, hidden),
                ("mlp.gate_proj", intermediate, hidden),
                ("mlp.up_proj", intermediate, hidden),
                ("mlp.down_proj", hidden, intermediate),
            ];
            tensors.push(tensor(
                format!("model.layers.{layer}.input_layernorm.weight"),
                &[hidden],
            ));
            tensors.push(tensor(
                format!("model.layers.{layer}.post_attention_layernorm.weight"),
                &[hidden],
            ));
            for (name, out_features, in_features) in linears {
                tensors.push(tensor(
                    format!("model.layers.{layer}.{name}.weight"),
                    &[out_features, in_features],
                ));
            }
        }
        tensors.push(tensor("model.norm.weight".to_owned(), &[hidden]));
        tensors.push(tensor("lm_head.weight".to_owned(), &[vocabulary, hidden]));
        tensors
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!({
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value * self.heads / self.hidden,
            "num_hidden_layers": self.layers,
            "vocab_size": self.vocabulary,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": false,
        })
    }
}

/// Writes `model.safetensors`, `config.json`, `tokenizer.json` and `norms.safetensors` into `dir`; returns the model's bytes.
///
/// # Errors
/// When there is no room, or `dir` cannot be written.
pub fn generate(dir: &Path, shape: &Shape) -> io::Result<usize> {
    std::fs::create_dir_all(dir)?;
    let tensors = shape.tensors();
    let mut random = Random::new(0x5eed);
    let mut norms = Norms::new(Provenance {
        path: dir.join("norms.safetensors"),
        format: Format::Measured,
        tokens: None,
        metadata: [("source".to_owned(), "random".to_owned())].into(),
    });
    for TensorSpec { name, shape, .. } in &tensors {
        if name.ends_with("_proj.weight") {
            let squares = (0..shape[1]).map(|_| (4.0 * random.normal()).exp() as f32);
            norms
                .insert(name.clone(), squares.collect())
                .map_err(io::Error::other)?;
        }
    }
    norms
        .write(&dir.join("norms.safetensors"))
        .map_err(io::Error::other)?;
    std::fs::write(dir.join("config.json"), shape.config().to_string())?;

    if shape.vocabulary >= TOKENIZER_VOCABULARY {
        std::fs::write(dir.join("tokenizer.json"), TOKENIZER)?;
    }

    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let header = Header::new(&tensors, &metadata).map_err(io::Error::other)?;
    let bytes = header.file_len();
    let path = dir.join("model.safetensors");
    let options = OutputOptions::new().overwrite(true);
    let file = Writer::create(&path, header, &options).map_err(io::Error::other)?;
    let mut part = Vec::with_capacity(PART);
    for (index, tensor) in file.header().tensors().iter().enumerate() {
        let mut first = 0;
        while first < tensor.len {
            part.clear();
            for _ in 0..(tensor.len - first).min(PART as u64) / 2 {
                let weight = 0.02 * random.normal() as f32;
                part.extend(((weight.to_bits() >> 16) as u16).to_le_bytes());
            }
            file.write(index, first, &part).map_err(io::Error::other)?;
            first += part.len() as u64;
        }
    }
    file.finish().map_err(io::Error::other)?;
    Ok(bytes as usize)
}
