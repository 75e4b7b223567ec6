//! The report's file: staged before the work, so that one that cannot be written costs no run.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::page::{self, Run};
use crate::checkpoint::{self, NewFile};
use crate::untrusted;

/// A file that a report will be written to; until then, what was there before is there.
#[derive(Debug)]
pub(crate) struct ReportFile {
    is_page: bool,
    file: NewFile,
}

impl ReportFile {
    /// Stages a report that is to appear at `path`; one that is there is replaced where that is allowed.
    ///
    /// # Errors
    /// [`checkpoint::Error::OutputExists`], and what else is wrong with the place.
    pub(crate) fn create(path: &Path, overwrite: bool) -> Result<Self, checkpoint::Error> {
        let end = path.extension();
        Ok(Self {
            is_page: end.is_some_and(|end| end.eq_ignore_ascii_case("html")),
            file: NewFile::create(path, overwrite)?,
        })
    }

    /// Writes the report: as a page if the file's name ends in `.html`, else as JSON.
    pub(crate) fn write(self, report: &impl Serialize) -> io::Result<()> {
        let text = if self.is_page {
            page::page(&[Run::of(report)?], &[])
        } else {
            untrusted::json(report)?
        };
        self.file
            .write(text.as_bytes(), false)
            .map_err(io::Error::other)
    }
}
