//! The page of the REST interface, from its OpenAPI description.

use serde_json::{Map, Value};

use super::markdown::{cell, row, wrapped};
use crate::api;

const HEAD: &str = "\
# REST

The service describes itself at `GET /api/openapi.json`, and `/api/docs` is a page to try it.
[Notes on the interface](rest-notes.md) explain tokens, jobs, errors and limits.

| call | what it does |
| --- | --- |
";

/// The methods of HTTP, in the order of the page.
const METHODS: [&str; 4] = ["get", "post", "put", "delete"];

pub(super) fn page() -> String {
    // A description that was generated can be written as JSON.
    let contract = serde_json::to_value(api::openapi()).unwrap_or_default();
    let operations: Vec<(String, &Value)> = members(&contract["paths"])
        .flat_map(|(path, item)| {
            METHODS.iter().filter_map(move |method| {
                let operation = item.get(*method)?;
                Some((format!("{} {path}", method.to_ascii_uppercase()), operation))
            })
        })
        .collect();
    let mut text = HEAD.to_owned();
    for (call, operation) in &operations {
        text += &row(&[&format!("[`{call}`](#{})", anchor(call)), &cell(&summary(operation))]);
    }
    for (call, operation) in &operations {
        text += &of_operation(call, operation);
    }
    text += "\n## Types\n";
    for (name, schema) in members(&contract["components"]["schemas"]) {
        text += &of_schema(name, schema);
    }
    text
}

fn of_operation(call: &str, operation: &Value) -> String {
    let mut text = format!("\n## `{call}`\n\n{}\n", paragraph(&summary(operation)));
    if let Some(description) = operation["description"].as_str() {
        text += &format!("\n{}\n", paragraph(description));
    }
    if operation["security"].as_array().is_some_and(|ways| ways.iter().all(|way| way.as_object().is_some_and(Map::is_empty))) {
        text += "\nNeeds no token.\n";
    }
    let parameters: String = items(&operation["parameters"])
        .map(|parameter| {
            let place = parameter["in"].as_str().unwrap_or_default();
            let required = if parameter["required"] == true { "required" } else { "" };
            let (name, about) = (code(&parameter["name"]), described(parameter));
            row(&[&name, place, &kind(&parameter["schema"]), required, &about])
        })
        .collect();
    if !parameters.is_empty() {
        text += &format!("\n| parameter | in | type | | meaning |\n| --- | --- | --- | --- | --- |\n{parameters}");
    }
    if let Some(body) = operation.get("requestBody") {
        let optional = if body["required"] == true { "" } else { ", may be left out" };
        text += &format!("\nBody: {}{optional}.\n", content(body));
    }
    text += "\n| status | answer | meaning |\n| --- | --- | --- |\n";
    for (status, response) in members(&operation["responses"]) {
        text += &row(&[status, &content(response), &described(response)]);
    }
    text
}

fn of_schema(name: &str, schema: &Value) -> String {
    let mut text = format!("\n### {name}\n");
    if let Some(description) = schema["description"].as_str() {
        text += &format!("\n{}\n", paragraph(description));
    }
    let parts: Vec<&Value> = match schema["allOf"].as_array() {
        Some(parts) => parts.iter().collect(),
        None => vec![schema],
    };
    let also: Vec<String> = parts.iter().filter(|part| part.get("$ref").is_some()).map(|part| kind(part)).collect();
    if !also.is_empty() {
        text += &format!("\nThe fields of {}, and:\n", also.join(", "));
    }
    let fields: String = parts
        .iter()
        .flat_map(|part| {
            let required: Vec<&str> = items(&part["required"]).filter_map(Value::as_str).collect();
            members(&part["properties"]).map(move |(field, of)| {
                let always = if required.contains(&field.as_str()) { "always" } else { "" };
                row(&[&format!("`{field}`"), &kind(of), always, &described(of)])
            })
        })
        .collect();
    if !fields.is_empty() {
        text += &format!("\n| field | type | | meaning |\n| --- | --- | --- | --- |\n{fields}");
    } else if also.is_empty() {
        text += &format!("\n{}\n", kind(schema));
    }
    text
}

/// What a body or an answer holds: its type, or its media type.
fn content(of: &Value) -> String {
    let each = members(&of["content"]).map(|(media, content)| match media.as_str() {
        "application/json" => kind(&content["schema"]),
        other => format!("`{other}`"),
    });
    each.collect::<Vec<_>>().join(", ")
}

/// The type that a schema describes, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_ascii_lowercase());
    }
    let choices = ["oneOf", "anyOf", "allOf"].into_iter().find_map(|key| schema[key].as_array());
    if let Some(choices) = choices {
        let kinds: Vec<String> = choices.iter().map(kind).filter(|kind| kind != "null" && !kind.is_empty()).collect();
        return kinds.join(" or ");
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(code).collect::<Vec<_>>().join(", ");
    }
    let name = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect();
            names.join(" or ")
        }
        _ => String::new(),
    };
    match name.as_str() {
        "array" => format!("array of {}", kind(&schema["items"])),
        "object" if schema.get("additionalProperties").is_some_and(Value::is_object) => {
            format!("object of {}", kind(&schema["additionalProperties"]))
        }
        _ => match schema["format"].as_str() {
            Some(format) if name == "string" => format!("{name} ({format})"),
            _ => name,
        },
    }
}

fn summary(operation: &Value) -> String {
    operation["summary"].as_str().unwrap_or_default().to_owned()
}

fn described(of: &Value) -> String {
    cell(of["description"].as_str().unwrap_or_default())
}

/// Text of a description, in lines of the page: it may hold Markdown.
fn paragraph(text: &str) -> String {
    text.split("\n\n").map(wrapped).collect::<Vec<_>>().join("\n\n")
}

fn code(name: &Value) -> String {
    format!("`{}`", name.as_str().map_or_else(|| name.to_string(), str::to_owned))
}

/// The anchor of a heading that is a call.
fn anchor(call: &str) -> String {
    let kept = call.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
