//! Perplexity as the report has it.

use serde::Serialize;

use crate::device::DeviceInfo;
use crate::evaluation::Evaluation;
use crate::text::Text;

/// Perplexity, with everything it depends on.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EvaluationReport {
    /// The text.
    pub text: String,
    /// SHA-256 of the text.
    pub text_sha256: String,
    /// What the tokenizer put before every window, or `none`.
    pub prefix: String,
    /// Tokens a window.
    pub context: usize,
    /// Windows.
    pub windows: usize,
    /// Tokens that were predicted: all of each window but the prefix, or but the first where there is none.
    pub tokens: usize,
    /// `exp` of the mean loss.
    pub perplexity: f64,
    /// Mean loss, in nats per token.
    pub loss: f64,
    /// Its standard error over windows; none for a single window.
    pub loss_standard_error: Option<f64>,
    /// Where the forward pass ran.
    pub device: DeviceInfo,
    /// Tokens a second of the forward pass.
    pub tokens_per_second: f64,
    /// Of the second checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<AgainstReport>,
}

/// Perplexity of a second checkpoint on the same windows.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct AgainstReport {
    /// `exp` of the mean loss.
    pub perplexity: f64,
    /// Mean loss, in nats per token.
    pub loss: f64,
    /// Its standard error over windows; none for a single window.
    pub loss_standard_error: Option<f64>,
    /// Tokens a second of the forward pass.
    pub tokens_per_second: f64,
    /// The second's loss less the first's, in nats per token; none if their tokenizers differ.
    pub difference: Option<f64>,
    /// Its standard error over windows; none for a single window.
    pub standard_error: Option<f64>,
}

impl EvaluationReport {
    /// One evaluation, or two on the same text.
    #[must_use]
    pub fn new(text: &Text, first: &Evaluation, second: Option<&Evaluation>) -> Self {
        let against = |second: &Evaluation| {
            let difference = first.difference(second);
            AgainstReport {
                perplexity: second.perplexity(),
                loss: second.mean_loss(),
                loss_standard_error: second.standard_error(),
                tokens_per_second: second.tokens_per_second(),
                difference: difference.map(|d| d.mean),
                standard_error: difference.and_then(|d| d.standard_error),
            }
        };
        Self {
            text: text.name.clone(),
            text_sha256: text.sha256(),
            prefix: first.prefix.to_string(),
            context: first.context,
            windows: first.losses.len(),
            tokens: first.tokens(),
            perplexity: first.perplexity(),
            loss: first.mean_loss(),
            loss_standard_error: first.standard_error(),
            device: first.device.clone(),
            tokens_per_second: first.tokens_per_second(),
            against: second.map(against),
        }
    }
}
