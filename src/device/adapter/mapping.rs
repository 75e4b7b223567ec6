//! Buffers that are being mapped once a submission is done: counted down as wgpu calls back.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::{Mutex, MutexGuard};

use super::submissions::Submission;

/// Buffers that are being mapped, once a submission is done.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(super) submission: Submission,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Buffers that nobody has called back about.
    left: usize,
    /// The first that went wrong.
    failure: Option<String>,
    waker: Option<Waker>,
}

impl Mapping {
    /// Asks for the buffers, and for the receipt of the submission.
    pub(super) fn of(submission: Submission, buffers: &[(&wgpu::Buffer, wgpu::MapMode)]) -> Self {
        let state = Arc::new(Mutex::new(State {
            left: buffers.len() + 1,
            failure: None,
            waker: None,
        }));
        let receipt = (&submission.receipt, wgpu::MapMode::Read);
        for &(buffer, mode) in buffers.iter().chain([&receipt]) {
            let state = Arc::clone(&state);
            buffer.map_async(mode, .., move |outcome| {
                let mut state = lock(&state);
                if let Err(error) = outcome {
                    state.failure.get_or_insert(error.to_string());
                }
                state.left -= 1;
                if state.left == 0
                    && let Some(waker) = state.waker.take()
                {
                    waker.wake();
                }
            });
        }
        Self { submission, state }
    }

    /// Until wgpu has called back about every buffer. Where nobody polls the device meanwhile, it never does: this is for a
    /// browser, which polls by itself.
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
    pub(super) async fn complete(&self) {
        poll_fn(|context| {
            let mut state = lock(&self.state);
            if state.left == 0 {
                return Poll::Ready(());
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// What went wrong with the first buffer that could not be mapped.
    pub(super) fn take_failure(&self) -> Option<String> {
        lock(&self.state).failure.take()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock()
}
