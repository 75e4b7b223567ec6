//! A checkpoint of random bf16 weights with TinyLlama-1.1B's shapes, and norms for it, to measure on.
//!
//! Weights are near enough to a normal distribution for every pass to do its usual work; the same bytes come out each
//! time. A layer is 88 MB, embedding and head 262 MB.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

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

/// Writes `model.safetensors`, `config.json` and `norms.safetensors` into `dir`; returns the model's bytes. `vocabulary` is
/// TinyLlama's [`VOCABULARY`], or another where as large a share of a larger or smaller model is not to be pruned.
///
/// # Errors
/// When there is no room, or `dir` cannot be written.
pub fn generate(dir: &Path, layers: usize, vocabulary: usize) -> io::Result<usize> {
    std::fs::create_dir_all(dir)?;

    let mut tensors = vec![(
        "model.embed_tokens.weight".to_owned(),
        vec![vocabulary, HIDDEN],
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
        tensors.push((
            format!("model.layers.{layer}.input_layernorm.weight"),
            vec![HIDDEN],
        ));
        tensors.push((
            format!("model.layers.{layer}.post_attention_layernorm.weight"),
            vec![HIDDEN],
        ));
        for (name, out_features, in_features) in linears {
            tensors.push((
                format!("model.layers.{layer}.{name}.weight"),
                vec![out_features, in_features],
            ));
        }
    }
    tensors.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    tensors.push(("lm_head.weight".to_owned(), vec![vocabulary, HIDDEN]));

    let mut random = Random::new(0x5eed);
    let mut norms = Norms::new(Provenance {
        path: dir.join("norms.safetensors"),
        format: Format::Measured,
        tokens: None,
        metadata: [("source".to_owned(), "random".to_owned())].into(),
    });
    let mut header = serde_json::Map::new();
    header.insert(
        "__metadata__".to_owned(),
        serde_json::json!({ "format": "pt" }),
    );
    let mut offset = 0;
    for (name, shape) in &tensors {
        let bytes = 2 * shape.iter().product::<usize>();
        header.insert(
            name.clone(),
            serde_json::json!({ "dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + bytes] }),
        );
        offset += bytes;
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

    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::with_capacity(1 << 20, File::create(dir.join("model.safetensors"))?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for _ in 0..offset / 2 {
        let weight = 0.02 * random.normal() as f32;
        file.write_all(&((weight.to_bits() >> 16) as u16).to_le_bytes())?;
    }
    file.flush()?;
    Ok(8 + header.len() + offset)
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
