//! The page's functions as a stream that is read and one that is written.

use js_sys::{Function, Promise, Uint8Array};
use swiftprune_wgpu::prune::{Sink, Source};
use wasm_bindgen::{JsCast as _, JsValue};
use wasm_bindgen_futures::JsFuture;

/// `read(offset, length)`, which promises a `Uint8Array`.
pub(crate) struct JsSource(pub(crate) Function);

/// `write(bytes)`, which promises to have taken them.
pub(crate) struct JsSink(pub(crate) Function);

impl Source for JsSource {
    async fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), String> {
        let (offset, len) = (JsValue::from(offset as f64), JsValue::from(bytes.len()));
        let promise = self.0.call2(&JsValue::NULL, &offset, &len);
        let read: Uint8Array = settled(promise).await?.dyn_into().map_err(reason)?;
        if read.length() as usize != bytes.len() {
            return Err("it ends too early; was it changed meanwhile?".to_owned());
        }
        read.copy_to(bytes);
        Ok(())
    }
}

impl Sink for JsSink {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let bytes = Uint8Array::from(bytes);
        settled(self.0.call1(&JsValue::NULL, &bytes)).await?;
        Ok(())
    }
}

/// What a promise comes to.
async fn settled(promise: Result<JsValue, JsValue>) -> Result<JsValue, String> {
    let promise: Promise = promise.map_err(reason)?.dyn_into().map_err(reason)?;
    JsFuture::from(promise).await.map_err(reason)
}

/// What was thrown, as a sentence.
fn reason(thrown: JsValue) -> String {
    match thrown.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.message()),
        None => format!("{thrown:?}"),
    }
}
