//! Compiles a loop for the widest vector instructions that the CPU has, chosen at run time.

/// Runs the same code compiled for the widest vectors this CPU has.
///
/// What is called inside must be inlined into it to be compiled so. Rust neither fuses nor reorders floating-point
/// operations, so the width changes no bit.
#[inline(always)]
pub(crate) fn widest(work: impl FnOnce()) {
    struct Work<F>(F);
    impl<F: FnOnce()> pulp::NullaryFnOnce for Work<F> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            (self.0)();
        }
    }
    pulp::Arch::new().dispatch(Work(work));
}
