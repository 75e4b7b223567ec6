//! From a checkpoint to its description: the family is found, asked, and its answer held against the tensors.

use super::architecture::Architecture;
use super::config::Config;
use super::error::Error;
use super::families;
use super::family::ModelFiles;
use super::headers::Headers;
use crate::checkpoint::{Checkpoint, Source};
use crate::untrusted::shown;

impl Architecture {
    /// Reads what a checkpoint computes, and checks that its tensors fit.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn of(checkpoint: &Checkpoint) -> Result<Self, Error> {
        read(checkpoint).map_err(|error| match error {
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
    pub fn check_head(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let headers = Headers::of(checkpoint);
        headers.check(&self.head, &[self.vocab_size, self.embedding_size])?;
        match &self.head_bias {
            Some(bias) => headers.check(bias, &[self.vocab_size]),
            None => Ok(()),
        }
    }
}

/// Refuses a checkpoint that lacks tensors, or has none of their elements, as far as its architecture is known: for a model that
/// will not be run. One of several files of weights has a part of the tensors by itself.
///
/// # Errors
/// [`Error::Tensor`].
pub(crate) fn check_complete(checkpoint: &Checkpoint) -> Result<(), Error> {
    let path = checkpoint.source.weights().path().to_path_buf();
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let is_of_several = matches!(checkpoint.source, Source::File(_)) && name.contains("-of-");
    match read(checkpoint) {
        Err(Error::Tensor {
            file,
            tensor,
            problem,
        }) if !is_of_several => {
            let shape = Headers::of(checkpoint)
                .shape(&tensor)
                .map(<[usize]>::to_vec);
            // Whatever else is wrong with it matters to who runs the model.
            match shape.is_none_or(|shape| shape.contains(&0)) {
                true => Err(Error::Tensor {
                    file,
                    tensor,
                    problem,
                }),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn read(checkpoint: &Checkpoint) -> Result<Architecture, Error> {
    let file = checkpoint.source.weights().path().to_path_buf();
    let json = checkpoint.config.as_ref().ok_or(Error::NoConfig(file))?;
    let config = Config::new(json.json());
    let model_type = checkpoint
        .model_type()
        .ok_or_else(|| Error::Config("model_type is missing".to_owned()))?;
    let (family, model_type) = families::of(model_type)
        .ok_or_else(|| Error::Unsupported(format!("model_type {}", shown(model_type))))?;
    if config.get("quantization_config").is_some() {
        return Err(Error::Unsupported("a quantised checkpoint".to_owned()));
    }
    let headers = Headers::of(checkpoint);
    let files = ModelFiles {
        model_type,
        // A model that knows pictures, too, has its text's half here.
        config: config.part("text_config").unwrap_or(config),
        headers: &headers,
    };
    let architecture = (family.describe)(&files)?;
    check(&architecture, &headers)?;
    check_blocks(&architecture, &files)?;
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
        block.try_map(
            |linear| headers.check_linear(linear),
            |norm| headers.check_norm(norm),
            |vector| headers.check_vector(vector),
        )?;
    }
    Ok(())
}

/// Checks that no block is left over, but for those that predict further tokens, which the decoder does without.
fn check_blocks(architecture: &Architecture, files: &ModelFiles<'_>) -> Result<(), Error> {
    let key = "num_nextn_predict_layers";
    let further = match files.config.get(key) {
        None => 0,
        Some(value) if value.as_u64() == Some(0) => 0,
        Some(_) => files.config.size(key)?,
    };
    let blocks = architecture.blocks.len();
    let beyond = format!("{}{}.", architecture.block_prefix, blocks + further);
    match files.headers.starting_with(&beyond) {
        None => Ok(()),
        Some(tensor) => {
            let problem = format!(
                "is of a block that config.json does not count: num_hidden_layers is {blocks}, {key} {further}"
            );
            Err(files.headers.wrong(tensor, problem))
        }
    }
}
