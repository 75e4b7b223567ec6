//! JSON in which no key may occur twice, and the JSON that Python writes.
//!
//! Of two equal keys `serde_json` silently keeps the last, and other readers keep the first. A checkpoint that two programs
//! read differently is an attack or an accident, so the types here refuse it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::untrusted::shown;

/// A JSON object whose keys are all different, in the order of the keys.
#[derive(Debug)]
pub(super) struct UniqueMap<T>(pub BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for UniqueMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for MapVisitor<T> {
            type Value = UniqueMap<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut map = BTreeMap::new();
                while let Some(key) = access.next_key::<String>()? {
                    if map.contains_key(&key) {
                        return Err(twice(&key));
                    }
                    map.insert(key, access.next_value()?);
                }
                Ok(UniqueMap(map))
            }
        }

        deserializer.deserialize_map(MapVisitor(PhantomData))
    }
}

/// Any JSON value, dropped after a check that no object in it has a key twice.
#[derive(Debug)]
pub(super) struct UniqueAnything;

impl<'de> Deserialize<'de> for UniqueAnything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyVisitor;

        impl<'de> Visitor<'de> for AnyVisitor {
            type Value = UniqueAnything;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(UniqueAnything)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(UniqueAnything)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(UniqueAnything)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(UniqueAnything)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(UniqueAnything)
            }
            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(UniqueAnything)
            }
            // serde_json bounds the depth of both recursions at 128.
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                while access.next_element::<UniqueAnything>()?.is_some() {}
                Ok(UniqueAnything)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut seen = HashSet::new();
                while let Some(key) = access.next_key::<String>()? {
                    access.next_value::<UniqueAnything>()?;
                    if let Some(key) = seen.replace(key) {
                        return Err(twice(&key));
                    }
                }
                Ok(UniqueAnything)
            }
        }

        deserializer.deserialize_any(AnyVisitor)
    }
}

/// The JSON with `null` for the numbers that only Python's has; `None` if there are none. What is in a string stays.
pub(super) fn without_python_floats(json: &[u8]) -> Option<Vec<u8>> {
    // The longer one first: `Infinity` is a part of it.
    const FLOATS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut out = Vec::with_capacity(json.len());
    let mut found = false;
    let mut in_string = false;
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        if in_string {
            if byte == b'\\' {
                // The next one is escaped, a quotation mark too.
                out.extend(json.get(at..at + 2).unwrap_or(&json[at..]));
                at += 2;
                continue;
            }
            in_string = byte != b'"';
        } else if byte == b'"' {
            in_string = true;
        } else if let Some(float) = FLOATS.iter().find(|float| json[at..].starts_with(float)) {
            // A neighbouring letter or digit makes it another word, which the parser then refuses.
            out.extend(b" null ");
            found = true;
            at += float.len();
            continue;
        }
        out.push(byte);
        at += 1;
    }
    found.then_some(out)
}

/// The error for a key that occurs twice; the key is escaped.
pub(super) fn twice<E: serde::de::Error>(key: &str) -> E {
    E::custom(format_args!("the key `{}` occurs twice", shown(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_refuses_a_key_that_occurs_twice() {
        let error =
            serde_json::from_str::<UniqueMap<u8>>(r#"{"a":1,"b":2,"\u0061":3}"#).unwrap_err();
        assert!(
            error.to_string().starts_with("the key `a` occurs twice"),
            "{error}"
        );
        let map = serde_json::from_str::<UniqueMap<u8>>(r#"{"a":1,"b":2,"A":3}"#).unwrap();
        assert_eq!(map.0.len(), 3);
    }

    #[test]
    fn any_value_refuses_a_double_key_at_any_depth() {
        let with = r#"[1,-1,0.5,null,true,"s",{"x":[{"k":1,"k":2}]}]"#;
        assert!(serde_json::from_str::<UniqueAnything>(with).is_err());
        let without = with.replacen("\"k\"", "\"l\"", 1);
        assert!(serde_json::from_str::<UniqueAnything>(&without).is_ok());
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_stack_overflow() {
        assert!(serde_json::from_str::<UniqueAnything>(&"[".repeat(1_000_000)).is_err());
        assert!(serde_json::from_str::<UniqueAnything>(&"{\"a\":".repeat(1_000_000)).is_err());
    }
}
