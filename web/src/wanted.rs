//! What the page asks of a pruning.

use std::path::Path;

use serde::Deserialize;
use swiftprune_wgpu::checkpoint::Config;
use swiftprune_wgpu::norms::Norms;
use swiftprune_wgpu::plan::{Ewma, Options, Pattern, Selection};
use wasm_bindgen::JsError;

/// A file, and how it is to be pruned.
#[derive(Deserialize)]
pub(crate) struct Wanted {
    /// The file's name, for messages.
    pub(crate) name: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// What the norms file is called.
    norms_name: Option<String>,
    rule: Rule,
}

/// Which weights go.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rule {
    /// This share of each row, by the moving average.
    Ewma(f64),
    /// This share of each row, the lowest scores.
    Exact(f64),
    /// All but N of every M.
    Pattern(u32, u32),
}

impl Wanted {
    /// What the plan is asked for.
    pub(crate) fn options(&self) -> Result<Options, JsError> {
        let share = |sparsity: f64| match sparsity {
            0.0..=1.0 => Ok(sparsity),
            _ => Err(JsError::new("the sparsity is a number from 0 to 1")),
        };
        // With the score that the command line takes: `swiftprune` with norms, `ria` without.
        Ok(Options::new(match self.rule {
            Rule::Ewma(sparsity) => Selection::Ewma {
                sparsity: share(sparsity)?,
                ewma: Ewma::default(),
            },
            Rule::Exact(sparsity) => Selection::Exact {
                sparsity: share(sparsity)?,
            },
            Rule::Pattern(n, m) => Pattern::new(n, m)
                .map(Selection::Pattern)
                .ok_or_else(|| JsError::new("no pattern N:M that can be pruned to"))?,
        }))
    }

    /// The files that came with the weights.
    pub(crate) fn companions(
        &self,
        config: Option<&[u8]>,
        norms: Option<&[u8]>,
    ) -> Result<(Option<Config>, Option<Norms>), JsError> {
        let config = config.map(Config::parse).transpose();
        let config = config.map_err(|problem| JsError::new(&format!("config.json: {problem}")))?;
        let name = self.norms_name.as_deref().unwrap_or("norms");
        let norms = norms.map(|bytes| Norms::parse(bytes, Path::new(name)));
        Ok((config, norms.transpose()?))
    }
}
