//! Whether a matrix product of the library (candle's, by gemm) is shared out over the cores, which changes no bit of it. The
//! library has one switch for the process; it splits every product that is large enough, also where each core has work of its
//! own, and cores that share a product wait for each other.

/// Multiplications of a product from which on it is shared out: the default of the library.
const SHARED_ABOVE: usize = 48 * 48 * 256;

/// Each product stays on the core that asks for it: for where there is work for every core.
pub(crate) fn keep_on_one_core() {
    gemm::set_threading_threshold(usize::MAX);
}

/// Products are shared out over the cores.
pub(crate) fn share_out() {
    gemm::set_threading_threshold(SHARED_ABOVE);
}
