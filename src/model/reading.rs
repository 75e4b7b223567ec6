//! From a checkpoint to its description: the family is found, asked, and its answer held against the tensors.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::architecture::Architecture;
use super::config::Config;
use super::error::Error;
use super::families;
use super::family::ModelFiles;
use super::headers::Headers;
use super::parts::Visitor;
use super::tensors::{Linear, NormTensors, Vector};
use crate::checkpoint::{self, Checkpoint, Source};
use crate::names::grammar::{block, is_beside_the_decoder, stack};
use crate::names::rules::known;
use crate::untrusted::shown;

impl Architecture {
    /// Reads what a checkpoint computes, and checks that its tensors fit.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn of(checkpoint: &Checkpoint) -> Result<Self, Error> {
        check_absent(checkpoint)?;
        read(checkpoint, &Headers::of(checkpoint)).map_err(|error| match error {
            Error::Unsupported(what) => Error::Unsupported(format!(
                "{what} is not supported by the forward pass (supported: {})",
                families::supported()
            )),
            other => other,
        })
    }

    /// Checks that there is a head, which only losses need.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a head that is missing or of another shape.
    pub fn check_lm_head(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let headers = Headers::of(checkpoint);
        headers.check(&self.lm_head, &[self.vocab_size, self.embedding_size])?;
        match &self.lm_head_bias {
            Some(bias) => headers.check(bias, &[self.vocab_size]),
            None => Ok(()),
        }
    }
}

/// Refuses a checkpoint whose index names a tensor that is in none of its files, unless the decoder runs without it: buffers,
/// towers of other modalities, blocks that predict further tokens, the head of a model whose head is its embedding.
///
/// # Errors
/// [`checkpoint::Error::Index`], with the tensor.
pub(crate) fn check_absent(checkpoint: &Checkpoint) -> Result<(), checkpoint::Error> {
    if checkpoint.absent().next().is_none() {
        return Ok(());
    }
    let headers = Headers::of(checkpoint);
    let mut absent = checkpoint.absent();
    let needed = match read(checkpoint, &headers) {
        Ok(architecture) => absent.find(|name| {
            let is_other_head = is_head(name) && architecture.lm_head != *name;
            headers.was_not_found(name) && !is_other_head
        }),
        // What is missing may be why there is no architecture.
        Err(Error::Tensor { tensor, .. }) if checkpoint.absent().any(|name| name == tensor) => {
            absent.find(|name| *name == tensor)
        }
        // Without knowing the architecture, it is for the names to tell.
        Err(_) => absent.find(|name| !is_idle(name, checkpoint)),
    };
    match needed {
        Some(name) => Err(checkpoint.absent_error(name)),
        None => Ok(()),
    }
}

/// Whether a tensor is the matrix that makes logits.
fn is_head(name: &str) -> bool {
    let module = name.strip_suffix(".weight").unwrap_or(name);
    matches!(module.rsplit('.').next(), Some("lm_head" | "embed_out"))
}

/// Whether a name alone says that the decoder runs without the tensor.
fn is_idle(name: &str, checkpoint: &Checkpoint) -> bool {
    const BUFFERS: &[&str] = &["inv_freq", "masked_bias", "position_ids"];
    let config = checkpoint.config.as_ref();
    let value = |key: &str| config?.parts().find_map(|part| part.get(key));
    let is_tied = || value("tie_word_embeddings").and_then(Value::as_bool) == Some(true);
    let is_further = || {
        let number = block(name).and_then(|block| block.number.parse::<u64>().ok());
        let blocks = value("num_hidden_layers").and_then(Value::as_u64);
        number
            .zip(blocks)
            .is_some_and(|(number, blocks)| number >= blocks)
    };
    is_beside_the_decoder(name)
        || BUFFERS
            .iter()
            .any(|buffer| name.rsplit('.').next() == Some(buffer))
        || (is_head(name) && is_tied())
        || is_further()
}

/// Refuses a checkpoint that lacks a block, the elements of a weight or, where its architecture is known, any tensor: for a model
/// that will not be run. A file by itself may be one of several, and has a part of the tensors.
///
/// # Errors
/// [`Error::Tensor`], [`Error::BlockMissing`].
pub(crate) fn check_complete(checkpoint: &Checkpoint) -> Result<(), Error> {
    let file = checkpoint.source.weights().path().to_path_buf();
    let is_alone = matches!(checkpoint.source, Source::File(_));
    let headers = Headers::of(checkpoint);
    // The numbers of each stack of blocks, and whether a rule knows a weight of it.
    let mut stacks: BTreeMap<&str, (BTreeSet<usize>, bool)> = BTreeMap::new();
    for (_, tensor) in checkpoint.tensors() {
        let name = tensor.name.as_str();
        let is_weight = block(name).is_some() || name.ends_with(".weight");
        if is_weight && tensor.shape.contains(&0) {
            let problem = format!(
                "has the shape {:?}, so its weights are missing (training with ZeRO-3 saves such tensors unless it gathers them)",
                tensor.shape
            );
            return Err(headers.wrong(name, problem));
        }
        if let (Some(stack), Some(block)) = (stack(name), block(name))
            && let Ok(number) = block.number.parse()
        {
            let (numbers, is_known) = stacks.entry(stack).or_default();
            numbers.insert(number);
            *is_known |= known(name).is_some();
        }
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if is_alone && (checkpoint.config.is_none() || name.contains("-of-")) {
        return Ok(());
    }
    // A tensor that is there and not as config.json says matters to who runs the model.
    if let Err(Error::Tensor {
        file,
        tensor,
        problem,
    }) = read(checkpoint, &headers)
        && !headers.has(&tensor)
    {
        return Err(Error::Tensor {
            file,
            tensor,
            problem,
        });
    }
    for (stack, (numbers, _)) in stacks.into_iter().filter(|(_, (_, is_known))| *is_known) {
        let gap = (0..)
            .zip(&numbers)
            .find(|(expected, number)| expected != *number);
        if let Some((missing, _)) = gap {
            let block = format!("{stack}.{missing}");
            return Err(Error::BlockMissing { file, block });
        }
    }
    Ok(())
}

fn read(checkpoint: &Checkpoint, headers: &Headers<'_>) -> Result<Architecture, Error> {
    let file = checkpoint.source.weights().path().to_path_buf();
    let json = checkpoint.config.as_ref().ok_or(Error::NoConfig(file))?;
    let config = Config::new(json.json());
    let model_type = checkpoint
        .model_type()
        .ok_or_else(|| Error::Config("model_type is missing".to_owned()))?;
    // As transformers has it: a mistral whose config.json lists the kinds of its layers is a ministral.
    let model_type = match (model_type, config.get("layer_types")) {
        ("mistral", Some(_)) => "ministral",
        _ => model_type,
    };
    let (family, model_type) = families::of(model_type)
        .ok_or_else(|| Error::Unsupported(format!("model_type {}", shown(model_type))))?;
    if config.get("quantization_config").is_some() {
        return Err(Error::Unsupported("a quantised checkpoint".to_owned()));
    }
    let whole = config.of_class(model_type);
    // A model that knows pictures, too, has its text's half in a part.
    let (text, raw) = match whole.text_part() {
        Some(part) => (
            config.part_of_class(part, model_type)?,
            config.part(part)?.unwrap_or(config),
        ),
        None => (whole, config),
    };
    let tied = "tie_word_embeddings";
    let files = ModelFiles {
        model_type,
        config: text,
        tied: if whole.says(tied) { whole } else { text }.flag(tied)?,
        headers,
    };
    let mut architecture = (family.describe)(&files)?;
    if files.tied && !headers.has(&architecture.embedding) && headers.has(&architecture.lm_head) {
        architecture.embedding = architecture.lm_head.clone();
    }
    check(&architecture, headers)?;
    check_blocks(&architecture, headers, &raw)?;
    Ok(architecture)
}

/// Holds a description against the headers of the checkpoint.
fn check(architecture: &Architecture, headers: &Headers<'_>) -> Result<(), Error> {
    let Architecture {
        vocab_size,
        hidden_size,
        ..
    } = *architecture;
    let embedding_size = architecture.embedding_size;
    headers.check(&architecture.embedding, &[vocab_size, embedding_size])?;
    let projections = architecture.embedding_projections.iter().flatten();
    for linear in projections {
        headers.check_linear(linear)?;
    }
    if let Some(embedding) = &architecture.position_embedding {
        let rows = embedding.offset + embedding.positions;
        headers.check(&embedding.tensor, &[rows, hidden_size])?;
    }
    if let Some(norm) = &architecture.embedding_norm {
        headers.check_norm(norm)?;
    }
    headers.check_norm(&architecture.final_norm)?;
    for block in &architecture.blocks {
        block.visit(&mut Checks(headers))?;
    }
    Ok(())
}

/// Holds each tensor against the headers.
struct Checks<'h>(&'h Headers<'h>);

impl Visitor for Checks<'_> {
    type Error = Error;

    fn linear(&mut self, linear: &Linear) -> Result<(), Error> {
        self.0.check_linear(linear)
    }

    fn norm(&mut self, norm: &NormTensors) -> Result<(), Error> {
        self.0.check_norm(norm)
    }

    fn vector(&mut self, vector: &Vector) -> Result<(), Error> {
        self.0.check_vector(vector)
    }
}

/// Checks that no block is left over, but for those that predict further tokens, which the decoder does without.
fn check_blocks(
    architecture: &Architecture,
    headers: &Headers<'_>,
    config: &Config<'_>,
) -> Result<(), Error> {
    let key = "num_nextn_predict_layers";
    let further = match config.get(key) {
        None => 0,
        Some(value) if value.as_u64() == Some(0) => 0,
        Some(_) => config.size(key)?,
    };
    let blocks = architecture.blocks.len();
    let beyond = format!("{}{}.", architecture.block_prefix, blocks + further);
    match headers.starting_with(&beyond) {
        None => Ok(()),
        Some(tensor) => {
            let problem = format!(
                "is of a block that config.json does not count: num_hidden_layers is {blocks}, {key} {further}"
            );
            Err(headers.wrong(tensor, problem))
        }
    }
}
