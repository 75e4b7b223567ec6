//! The output of a run over a checkpoint: the same files with the same headers, and other data.
//!
//! [`Output::create`] checks where the output may go and stages it (`staging.rs`): every shard at its full length
//! with the header bytes of the input verbatim, and everything else of a model directory. Any number of threads then write
//! the data, each byte once, changed ones by [`Output::write_at`] and untouched ones by [`Output::copy_range`], at the
//! offsets that they have in the input. [`Output::finish`] puts it in place.
//!
//! The input is never written to and never replaced, and no link is written through, whatever the options say.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::companions::{self, Companions};
use super::copying::{self, CopySource};
use super::destination::{Destination, Form};
use super::error::Result;
use super::locate::{Weights, directory_of};
use super::options::OutputOptions;
use super::shards::{Checkpoint, Shard};
use super::staging::{FileSpec, Staging};

/// An output that is being written, invisible until it is finished; dropped before that, it leaves nothing.
#[derive(Debug)]
pub struct Output {
    stage: Staging,
    /// The number of the shard that is staged first: 0, unless one shard is staged alone.
    first: usize,
    /// The shards of the input that are staged, in the order of the staged files.
    inputs: Vec<PathBuf>,
    companions: Companions,
}

/// What a finished output consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finished {
    /// Where it is.
    pub path: PathBuf,
    /// The files that were copied as they are, relative to the model directory, with `/`; not the shards.
    pub copied: Vec<String>,
    /// The files and directories that were not copied, and why. Names are not escaped.
    pub left_out: Vec<(String, &'static str)>,
}

impl Output {
    /// Stages the output of `checkpoint` that is to appear at `path`: a file for a file, a directory for all else.
    ///
    /// # Errors
    /// [`Error::OutputExists`], [`Error::OutputIsInput`], [`Error::NotReplaceable`], [`Error::HoldsForeignFile`],
    /// [`Error::NoOutputName`] and [`Error::NoOutputDirectory`] for a place that cannot be taken; [`Error::NoSpace`] and [`Error::Io`].
    ///
    /// [`Error::OutputExists`]: super::error::Error::OutputExists
    /// [`Error::OutputIsInput`]: super::error::Error::OutputIsInput
    /// [`Error::NotReplaceable`]: super::error::Error::NotReplaceable
    /// [`Error::HoldsForeignFile`]: super::error::Error::HoldsForeignFile
    /// [`Error::NoOutputName`]: super::error::Error::NoOutputName
    /// [`Error::NoOutputDirectory`]: super::error::Error::NoOutputDirectory
    /// [`Error::NoSpace`]: super::error::Error::NoSpace
    /// [`Error::Io`]: super::error::Error::Io
    pub fn create(checkpoint: &Checkpoint, path: &Path, options: &OutputOptions) -> Result<Self> {
        let destination = Destination::of_checkpoint(checkpoint, path, options.overwrite)?;
        let specs: Vec<FileSpec<'_>> = checkpoint.shards.iter().map(spec).collect();
        let (stage, companions) = match checkpoint.source.directory() {
            None => {
                let stage = Staging::file(destination, &specs[0], options.sync)?;
                (stage, Companions::default())
            }
            Some(source) => {
                let others = companion_bytes(checkpoint, source)?;
                let stage =
                    Staging::directory(destination, &specs, others, Some(source), options.sync)?;
                let companions = copy_companions(checkpoint, source, &stage)?;
                (stage, companions)
            }
        };
        let shards = checkpoint.shards.iter();
        Ok(Self {
            stage,
            first: 0,
            inputs: shards.map(|shard| shard.path.clone()).collect(),
            companions,
        })
    }

    /// Stages one shard alone, which is to appear at `path` and replaces what is there. The directory is the caller's: whether
    /// it may hold an output is not asked.
    ///
    /// # Errors
    /// As [`Output::create`].
    pub(crate) fn create_shard(
        checkpoint: &Checkpoint,
        shard: usize,
        path: &Path,
        sync: bool,
    ) -> Result<Self> {
        let of_input = &checkpoint.shards[shard];
        let destination = Destination::new(path, Form::Weights, true)?;
        Ok(Self {
            stage: Staging::file(destination, &spec(of_input), sync)?,
            first: shard,
            inputs: vec![of_input.path.clone()],
            companions: Companions::default(),
        })
    }

    /// Whether an output of `checkpoint` may appear at `path`; nothing is staged.
    ///
    /// # Errors
    /// Those of [`Output::create`] for a place that cannot be taken, and for companions that are too large.
    pub(crate) fn check_place(checkpoint: &Checkpoint, path: &Path, overwrite: bool) -> Result<()> {
        Destination::of_checkpoint(checkpoint, path, overwrite)?;
        match checkpoint.source.directory() {
            Some(source) => companion_bytes(checkpoint, source).map(drop),
            None => Ok(()),
        }
    }

    /// Makes an output of shards that are finished: one file for each of the checkpoint's, in their order. They stay where they
    /// are, and share their blocks with the output where the file system has hard links; elsewhere they are copied. With
    /// `sync`, all of it is on the disk when this returns, so that the shards may be removed.
    ///
    /// # Errors
    /// As [`Output::create`] and [`Output::finish`].
    pub(crate) fn assemble(
        checkpoint: &Checkpoint,
        path: &Path,
        options: &OutputOptions,
        shards: &[PathBuf],
    ) -> Result<Finished> {
        let destination = Destination::of_checkpoint(checkpoint, path, options.overwrite)?;
        let weights = checkpoint.source.weights();
        let beside = directory_of(weights.path());
        let source = checkpoint.source.directory().unwrap_or(beside);
        let weights: u64 = checkpoint.shards.iter().map(|shard| shard.len).sum();
        let others = companion_bytes(checkpoint, source)?.saturating_add(weights);
        let stage = Staging::directory(destination, &[], others, Some(source), options.sync)?;
        for (shard, from) in checkpoint.shards.iter().zip(shards) {
            let to = stage.temporary().join(&shard.file_name);
            if fs::hard_link(from, &to).is_err() {
                fs::copy(from, &to).map_err(|error| stage.failed(error, &to))?;
            }
        }
        let companions = copy_companions(checkpoint, source, &stage)?;
        let output = Self {
            stage,
            first: 0,
            inputs: Vec::new(),
            companions,
        };
        output.finish()
    }

    /// Where the output will appear.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.stage.path()
    }

    /// Writes data of the shard with this number, `offset` bytes from the start of its file. Each byte of the data is
    /// to be written once.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] outside the data (the header is not written to); [`Error::NoSpace`] and [`Error::Io`].
    ///
    /// [`Error::OutOfRange`]: super::error::Error::OutOfRange
    /// [`Error::NoSpace`]: super::error::Error::NoSpace
    /// [`Error::Io`]: super::error::Error::Io
    pub fn write_at(&self, shard: usize, bytes: &[u8], offset: u64) -> Result<()> {
        self.stage.write_at(self.staged(shard), bytes, offset)
    }

    /// Copies `len` bytes of the data of a shard as they are, from the input to the same `offset` of the output, in
    /// the kernel where it can. `input` is any handle of the input's shard; its cursor may be used.
    ///
    /// # Errors
    /// As [`Output::write_at`], and [`Error::Changed`](super::error::Error::Changed) if the input has become shorter.
    pub fn copy_range(&self, shard: usize, input: &File, offset: u64, len: u64) -> Result<()> {
        let shard = self.staged(shard);
        self.stage.fill(shard, offset, len, |staged| {
            let input = CopySource {
                file: input,
                path: &self.inputs[shard],
            };
            copying::copy(&self.stage, staged, input, offset, len)
        })
    }

    /// The number of a shard's staged file; of no file where the shard is not staged.
    fn staged(&self, shard: usize) -> usize {
        shard.checked_sub(self.first).unwrap_or(usize::MAX)
    }

    /// Puts the output in place.
    ///
    /// # Errors
    /// [`Error::Incomplete`] if data are missing; [`Error::OutputExists`] or [`Error::NotReplaceable`] if something
    /// has come in the way meanwhile; [`Error::Io`]. The staged output is then gone, and what was there before is
    /// still there (for [`Error::OldMovedAside`], where that says).
    ///
    /// [`Error::Incomplete`]: super::error::Error::Incomplete
    /// [`Error::OutputExists`]: super::error::Error::OutputExists
    /// [`Error::NotReplaceable`]: super::error::Error::NotReplaceable
    /// [`Error::OldMovedAside`]: super::error::Error::OldMovedAside
    /// [`Error::Io`]: super::error::Error::Io
    pub fn finish(self) -> Result<Finished> {
        let path = self.stage.finish()?;
        let Companions { copied, left_out } = self.companions;
        Ok(Finished {
            path,
            copied,
            left_out,
        })
    }
}

/// A shard as it is staged: with the header of the input's.
fn spec(shard: &Shard) -> FileSpec<'_> {
    FileSpec {
        name: shard.path.file_name().unwrap_or_default().to_os_string(),
        header: shard.header().raw(),
        len: shard.len,
        like: Some(&shard.path),
    }
}

/// The names of a checkpoint's files of weights, and that of its index.
fn own_names(checkpoint: &Checkpoint) -> (Vec<OsString>, Option<OsString>) {
    let shards = checkpoint.shards.iter();
    let names = shards.map(|shard| spec(shard).name).collect();
    let index = match checkpoint.source.weights() {
        Weights::Sharded(index) => index.file_name().map(OsString::from),
        Weights::Single(_) => None,
    };
    (names, index)
}

/// Bytes of what is beside the weights and will be copied.
fn companion_bytes(checkpoint: &Checkpoint, source: &Path) -> Result<u64> {
    let (names, index) = own_names(checkpoint);
    companions::bytes(source, &names, index.as_ref())
}

/// Copies what is beside the weights of a model directory into the staged one.
fn copy_companions(checkpoint: &Checkpoint, source: &Path, stage: &Staging) -> Result<Companions> {
    let (names, index) = own_names(checkpoint);
    let failed = |error, path: &Path| stage.failed(error, path);
    companions::copy(source, stage.temporary(), &names, index.as_ref(), &failed)
}

#[cfg(test)]
mod tests;
