//! Everything that is measured on one device, into one record.

use super::error::Error;
#[cfg(feature = "native")]
use super::files;
use super::matrices;
use super::options::BenchOptions;
use super::record::{Machine, Record};
#[cfg(feature = "native")]
use super::whole_run;
use crate::device::Device;

/// Measures one device; `progress` is told what comes next.
///
/// # Errors
/// Every variant of [`Error`].
#[cfg(feature = "native")]
pub fn run(
    device: &Device,
    options: &BenchOptions,
    progress: &dyn Fn(&str),
) -> Result<Record, Error> {
    let mut record = Record::new(device.info().clone());
    match &options.dir {
        Some(dir) => whole_run::measure(device, options, dir, &mut record, progress)?,
        None => record
            .left_out
            .push("whole run, files and calibration: not asked for".to_owned()),
    }
    pollster::block_on(matrices::measure(device, options, &mut record, progress))?;
    if let Some(dir) = &options.dir {
        files::measure(device, options, dir, &mut record, progress)?;
    }
    Ok(record)
}

/// Measures the passes alone, which need no files, and gives the thread back while the device works: for a browser, which has
/// to be told where it runs and when (`date`, RFC 3339 in UTC).
///
/// # Errors
/// [`Error::Device`].
pub async fn run_passes(
    device: &Device,
    options: &BenchOptions,
    machine: Machine,
    date: String,
    progress: &dyn Fn(&str),
) -> Result<Record, Error> {
    let mut record = Record::of(device.info().clone(), machine, date);
    matrices::measure(device, options, &mut record, progress).await?;
    let why = "files and calibration: only the installed program measures them";
    record.left_out.push(why.to_owned());
    Ok(record)
}
