//! What a sweep works with, once it has been checked.

use super::request::SweepRequest;
use std::sync::Arc;

use crate::calibration::Calibration;
use crate::checkpoint::Checkpoint;
use crate::evaluation::Windows;
use crate::norms::Norms;
use crate::plan::Options;
use crate::run::DevicePair;

/// What a sweep works with.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) request: SweepRequest,
    pub(super) checkpoint: Checkpoint,
    pub(super) cells: Vec<Options>,
    /// Those of a file.
    pub(super) norms: Option<Arc<Norms>>,
    /// What measures them otherwise.
    pub(super) calibration: Option<Calibration>,
    pub(super) windows: Windows,
    pub(super) devices: DevicePair,
}
