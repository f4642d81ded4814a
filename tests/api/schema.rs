//! Holds answers against the OpenAPI document: a small part of JSON Schema, stricter in that it takes no property that the
//! schema does not name.

use serde_json::Value;

use crate::support::Answer;

/// The OpenAPI document as the gateway serves it.
pub struct Document(Value);

impl Document {
    /// The document in this answer.
    pub fn fetch(answer: &Answer) -> Self {
        Self(answer.ok(200))
    }

    /// Panics when an answer is not one that the document describes.
    pub fn check(&self, method: &str, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap();
        let paths = self.0["paths"].as_object().unwrap();
        let Some((_, item)) = paths.iter().find(|(template, _)| fits(template, path)) else { return };
        let operation = &item[method.to_ascii_lowercase()];
        if operation.is_null() {
            return;
        }
        let responses = &operation["responses"];
        let exact = &responses[answer.status.to_string()];
        let described = self.resolve(if exact.is_null() { &responses["default"] } else { exact });
        assert!(!described.is_null(), "{method} {path}: status {} is not described", answer.status);
        match &described["content"]["application/json"]["schema"] {
            Value::Null => {}
            schema => self.conforms(schema, &answer.json(), &format!("{method} {path} {}", answer.status)),
        }
    }

    fn conforms(&self, schema: &Value, value: &Value, at: &str) {
        let schema = self.resolve(schema);
        let types: Vec<_> = match &schema["type"] {
            Value::String(one) => vec![one.as_str()],
            Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
            _ => return,
        };
        assert!(types.iter().any(|name| is_a(name, value)), "{at}: {value} is none of {types:?}");
        if let Some(allowed) = schema["enum"].as_array() {
            assert!(allowed.contains(value), "{at}: {value} is none of {allowed:?}");
        }
        for name in schema["required"].as_array().filter(|_| value.is_object()).into_iter().flatten() {
            assert!(value.get(name.as_str().unwrap()).is_some(), "{at}: {name} is missing in {value}");
        }
        for (name, value) in value.as_object().into_iter().flatten() {
            let property = schema["properties"].get(name);
            let property = property.unwrap_or_else(|| panic!("{at}: {name} is not described"));
            self.conforms(property, value, &format!("{at}.{name}"));
        }
        for (n, value) in value.as_array().into_iter().flatten().enumerate() {
            self.conforms(&schema["items"], value, &format!("{at}[{n}]"));
        }
    }

    fn resolve<'d>(&'d self, value: &'d Value) -> &'d Value {
        match value["$ref"].as_str() {
            Some(reference) => self.0.pointer(reference.trim_start_matches('#')).expect("references lead somewhere"),
            None => value,
        }
    }
}

fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("the document names a type {other:?}"),
    }
}

fn fits(template: &str, path: &str) -> bool {
    let same = |(expected, part): (&str, &str)| expected.starts_with('{') || expected == part;
    template.split('/').count() == path.split('/').count() && template.split('/').zip(path.split('/')).all(same)
}
