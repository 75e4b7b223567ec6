//! A checkpoint of random bf16 weights with TinyLlama-1.1B's shapes, and norms for it, to measure on.
//!
//! Weights are near enough to a normal distribution for every pass to do its usual work; the same bytes come out each
//! time. A layer is 88 MB, embedding and head 262 MB.

use std::io;
use std::path::Path;

use crate::checkpoint::{Header, OutputOptions, TensorSpec, Writer};
use crate::dtype::StoredDtype;
use crate::fixtures::Random;
use crate::norms::{Format, Norms, Provenance};

const HIDDEN: usize = 2048;
const INTERMEDIATE: usize = 5632;
const KEY_VALUE: usize = 256;
const HEADS: usize = 32;
/// Tokens it knows.
pub const VOCABULARY: usize = 32000;
/// Weights of a layer's linear layers.
pub const LAYER_WEIGHTS: usize =
    2 * HIDDEN * HIDDEN + 2 * KEY_VALUE * HIDDEN + 3 * INTERMEDIATE * HIDDEN;

/// Bytes of weights that are made at a time.
const PART: usize = 1 << 20;

/// Writes `model.safetensors`, `config.json` and `norms.safetensors` into `dir`; returns the model's bytes. `vocabulary` is
/// TinyLlama's [`VOCABULARY`], or another where as large a share of a larger or smaller model is not to be pruned.
///
/// # Errors
/// When there is no room, or `dir` cannot be written.
pub fn generate(dir: &Path, layers: usize, vocabulary: usize) -> io::Result<usize> {
    std::fs::create_dir_all(dir)?;

    let tensor =
        |name: String, shape: &[usize]| TensorSpec::new(name, StoredDtype::Bf16, shape.into());
    let mut tensors = vec![tensor(
        "model.embed_tokens.weight".to_owned(),
        &[vocabulary, HIDDEN],
    )];
    for layer in 0..layers {
        let linears = [
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", KEY_VALUE, HIDDEN),
            ("self_attn.v_proj", KEY_VALUE, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", INTERMEDIATE, HIDDEN),
            ("mlp.up_proj", INTERMEDIATE, HIDDEN),
            ("mlp.down_proj", HIDDEN, INTERMEDIATE),
        ];
        tensors.push(tensor(
            format!("model.layers.{layer}.input_layernorm.weight"),
            &[HIDDEN],
        ));
        tensors.push(tensor(
            format!("model.layers.{layer}.post_attention_layernorm.weight"),
            &[HIDDEN],
        ));
        for (name, out_features, in_features) in linears {
            tensors.push(tensor(
                format!("model.layers.{layer}.{name}.weight"),
                &[out_features, in_features],
            ));
        }
    }
    tensors.push(tensor("model.norm.weight".to_owned(), &[HIDDEN]));
    tensors.push(tensor("lm_head.weight".to_owned(), &[vocabulary, HIDDEN]));

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
    std::fs::write(
        dir.join("config.json"),
        config(layers, vocabulary).to_string(),
    )?;

    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let header = Header::new(&tensors, &metadata).map_err(io::Error::other)?;
    let bytes = header.file_len();
    let path = dir.join("model.safetensors");
    let options = OutputOptions::new().overwrite(true);
    let file = Writer::create(&path, header, &options).map_err(io::Error::other)?;
    let mut part = Vec::with_capacity(PART);
    for (index, tensor) in file.header().tensors.iter().enumerate() {
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

fn config(layers: usize, vocabulary: usize) -> serde_json::Value {
    serde_json::json!({
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE * HEADS / HIDDEN,
        "num_hidden_layers": layers,
        "vocab_size": vocabulary,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": false,
    })
}
