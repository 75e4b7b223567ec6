//! What the numbers of a cell depend on, as one sum: cells of a state file are used again where it is the same.
//!
//! The weights are known by their bytes, whatever their files are called and whenever they were written: to hash them takes less
//! time than the forward pass of a cell. The text that perplexity is measured on is known by its tokens.

use serde_json::{Value, json};

use super::error::Error;
use super::request::SweepRequest;
use crate::calibration::Calibration;
use crate::checkpoint::Checkpoint;
use crate::checksum;
use crate::evaluation::Windows;
use crate::parts::CalibratedRecord;
use crate::plan::Options;
use crate::run::{self, NormsRequest, Stop};

/// The keys of a sweep.
pub(super) struct Keys {
    /// What all cells share, the dense model too.
    of_model: Value,
    /// What the cells share.
    of_norms: Value,
}

impl Keys {
    pub(super) fn new(
        request: &SweepRequest,
        checkpoint: &Checkpoint,
        windows: &Windows,
        calibration: Option<&Calibration>,
        device: &str,
    ) -> Result<Self, Error> {
        let of_norms = match (&request.norms, calibration) {
            (NormsRequest::Read(path), _) => {
                let sum = checksum::of_file(path, &Stop::new());
                let sum = sum.map_err(|reason| {
                    run::Error::from(crate::norms::Error::Io {
                        path: path.clone(),
                        source: reason,
                    })
                });
                json!({ "file": sum? })
            }
            (_, Some(calibration)) => json!({
                "text": calibration.text().sha256(),
                "tokens": calibration.tokens(),
                "context": calibration.context(),
                "prefix": calibration.prefix().ids(),
            }),
            _ => Value::Null,
        };
        let tokens: Vec<u8> = (windows.tokens().iter())
            .flat_map(|token| token.to_le_bytes())
            .collect();
        // Without a state file no key is looked up.
        let model = request
            .state
            .as_ref()
            .map(|_| CalibratedRecord::of(checkpoint, &request.stop));
        let model = model.transpose().map_err(run::Error::from)?;
        let of_model = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "model": model.map(|model| {
                let shards = model.input.into_iter().map(|content| content.sha256);
                json!({ "shards": shards.collect::<Vec<_>>(), "beside": model.beside })
            }),
            "tokens": checksum::of_bytes(&tokens),
            "context": windows.context(),
            "prefix": windows.prefix().ids(),
            "device": device,
        });
        Ok(Self { of_model, of_norms })
    }

    /// Of the dense model's losses.
    pub(super) fn of_dense(&self) -> String {
        checksum::of_bytes(self.of_model.to_string().as_bytes())
    }

    /// Of a cell.
    pub(super) fn of_cell(&self, options: &Options) -> String {
        let all = json!({ "model": self.of_model, "norms": self.of_norms, "options": options });
        checksum::of_bytes(all.to_string().as_bytes())
    }
}
