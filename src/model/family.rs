//! What a family of architectures is: the model types it goes by, and how it reads a checkpoint.

use super::architecture::Architecture;
use super::config::Config;
use super::error::Error;
use super::headers::Headers;

/// Architectures that differ in a few numbers and names.
pub(super) struct Family {
    /// `model_type` in config.json.
    pub(super) model_types: &'static [&'static str],
    /// Says what a checkpoint computes. The tensors it names are checked afterwards.
    pub(super) describe: fn(&ModelFiles<'_>) -> Result<Architecture, Error>,
}

/// What a family reads: config.json, and which tensors there are.
pub(super) struct ModelFiles<'a> {
    /// The one of the family's model types that it is.
    pub(super) model_type: &'static str,
    pub(super) config: Config<'a>,
    /// Whether the head is the embedding, where no head is stored.
    pub(super) tied: bool,
    pub(super) headers: &'a Headers<'a>,
}

impl ModelFiles<'_> {
    /// The number of blocks, at most as many as there are tensors, as each has some of its own.
    pub(super) fn blocks(&self) -> Result<usize, Error> {
        let key = "num_hidden_layers";
        let blocks = self.config.size(key)?;
        let tensors = self.headers.len();
        if blocks > tensors {
            return Err(Error::Config(format!(
                "{key} is {blocks}, and the checkpoint has only {tensors} tensors"
            )));
        }
        Ok(blocks)
    }

    /// What names begin with: `usual`; nothing in a model that was saved without its head; and the place of the text's half
    /// in one that knows pictures, too, as transformers 4 and 5 write it.
    pub(super) fn prefix(&self, usual: &str, embedding: &str) -> String {
        let places = ["", usual, "language_model.model.", "model.language_model."];
        let is_there = |place: &&str| self.headers.has(&format!("{place}{embedding}.weight"));
        places
            .into_iter()
            .find(is_there)
            .unwrap_or(usual)
            .to_owned()
    }

    /// The one of these prefixes under which there is an embedding; the first if there is none.
    pub(super) fn prefix_of(&self, prefixes: &[&'static str], embedding: &str) -> &'static str {
        let has = |prefix: &&&str| self.headers.has(&format!("{prefix}{embedding}.weight"));
        prefixes.iter().find(has).unwrap_or(&prefixes[0])
    }

    /// The tensor of the head: that of the first module of these which is stored, or `embedding` where they are tied.
    ///
    /// A head that is stored counts even where they are tied: transformers and vLLM take it if it differs, as it does where
    /// only one of the two was trained on or pruned, and it is the same if not.
    pub(super) fn lm_head(&self, modules: &[&str], embedding: &str) -> String {
        let name = |module: &&str| format!("{module}.weight");
        let mut names = modules.iter().map(name);
        match names.find(|name| self.headers.has(name)) {
            Some(stored) => stored,
            None if self.tied => embedding.to_owned(),
            None => name(&modules[0]),
        }
    }
}
