//! The weights of some rows in memory: what is read, pruned and written at a time.

/// The weights of some rows, row-major, aligned for every dtype. Its memory is used again for the next rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    words: Vec<u64>,
    len: usize,
    /// One input feature's weights, while a matrix stored `[in, out]` is read or written.
    band: Vec<u8>,
}

impl Chunk {
    pub(super) fn resize(&mut self, bytes: usize) -> &mut [u8] {
        self.words.resize(bytes.div_ceil(8), 0);
        self.len = bytes;
        self.bytes_mut()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }

    /// Room for one input feature's weights over all rows, `band_bytes` in all.
    pub(super) fn band_mut(&mut self, band_bytes: usize) -> &mut [u8] {
        self.band.resize(band_bytes, 0);
        &mut self.band
    }

    /// Puts the band into the rows, as their weights of one input feature.
    pub(super) fn scatter_band(&mut self, feature: usize, in_features: usize, size: usize) {
        let bytes = bytemuck::cast_slice_mut::<u64, u8>(&mut self.words);
        for (row, weight) in self.band.chunks_exact(size).enumerate() {
            let at = (row * in_features + feature) * size;
            bytes[at..at + size].copy_from_slice(weight);
        }
    }

    /// The rows' weights of one input feature, as a band.
    pub(super) fn gather_band(&mut self, feature: usize, in_features: usize, size: usize) -> &[u8] {
        let bytes = bytemuck::cast_slice::<u64, u8>(&self.words);
        for (row, weight) in self.band.chunks_exact_mut(size).enumerate() {
            let at = (row * in_features + feature) * size;
            weight.copy_from_slice(&bytes[at..at + size]);
        }
        &self.band
    }
}
