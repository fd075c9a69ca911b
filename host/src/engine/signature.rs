//! The types of interfaces as text, so that what a component expects can be compared with what the WIT package says.
//!
//! Only structure counts: names of types do not, names of fields, cases and resources do.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::LazyLock,
};

use wasmparser::{
    Validator, WasmFeatures,
    component_types::{
        AliasableResourceId, ComponentAnyTypeId, ComponentDefinedType, ComponentEntityType, ComponentFuncTypeId,
        ComponentInstanceTypeId, ComponentItem, ComponentValType, ResourceId,
    },
    types::TypesRef,
};

use crate::bindings::COMPONENT_TYPE;

/// The functions of an interface by name, each with its type as text.
pub type Functions = BTreeMap<String, String>;

/// The interfaces of our WIT package, by their name without a version.
#[derive(Debug)]
pub struct Package {
    /// What a component may import.
    pub imports: BTreeMap<String, Functions>,
    /// What it must export.
    pub exports: BTreeMap<String, Functions>,
}

/// No type of ours is as long: a guest's type that is longer is not worth writing out.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// The package that this host was built with.
pub static PACKAGE: LazyLock<Package> = LazyLock::new(|| {
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    let types = validator.validate_all(COMPONENT_TYPE).expect("bindgen encodes a valid world");
    let types = types.as_ref();
    let world = types
        .component_item_for_export("everything")
        .and_then(|item| inner_component(types, &item.ty))
        .and_then(|package| types[package].exports.values().find_map(|item| inner_component(types, &item.ty)))
        .map(|world| &types[world])
        .expect("bindgen encodes the world as a component type within the package's");
    let interfaces = |items: &wasmparser::collections::IndexMap<String, ComponentItem>| {
        let interface = |(name, item): (&String, &ComponentItem)| match item.ty {
            ComponentEntityType::Instance(instance) => Some((unversioned(name).to_owned(), functions(types, instance))),
            _ => None,
        };
        items.iter().filter_map(interface).collect()
    };
    Package { imports: interfaces(&world.imports), exports: interfaces(&world.exports) }
});

fn inner_component(
    types: TypesRef<'_>,
    item: &ComponentEntityType,
) -> Option<wasmparser::component_types::ComponentTypeId> {
    match *item {
        ComponentEntityType::Component(id) => Some(id),
        ComponentEntityType::Type { referenced: ComponentAnyTypeId::Component(id), .. } => Some(id),
        _ => None,
    }
    .filter(|id| !types[*id].exports.is_empty())
}

/// An interface's name without its version.
pub fn unversioned(name: &str) -> &str {
    name.split_once('@').map_or(name, |(name, _)| name)
}

/// The functions of an instance.
pub fn functions(types: TypesRef<'_>, instance: ComponentInstanceTypeId) -> Functions {
    let exports = &types[instance].exports;
    let resource = |(name, item): (&String, &ComponentItem)| match item.ty {
        ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(id), .. } => {
            Some((id.resource(), name.clone()))
        }
        _ => None,
    };
    let resources = exports.iter().filter_map(resource).collect();
    let function = |(name, item): (&String, &ComponentItem)| match item.ty {
        ComponentEntityType::Func(function) => Some((name.clone(), Writer::function(types, &resources, function))),
        _ => None,
    };
    exports.iter().filter_map(function).collect()
}

struct Writer<'a> {
    types: TypesRef<'a>,
    resources: &'a HashMap<ResourceId, String>,
    text: String,
}

impl<'a> Writer<'a> {
    fn function(types: TypesRef<'a>, resources: &'a HashMap<ResourceId, String>, id: ComponentFuncTypeId) -> String {
        let mut writer = Self { types, resources, text: String::new() };
        let function = &types[id];
        writer.push(if function.async_ { "async (" } else { "(" });
        for (name, value) in &function.params {
            writer.push(name);
            writer.push(": ");
            writer.value(value);
            writer.push(", ");
        }
        writer.push(")");
        writer.payload(" -> ", function.result.as_ref());
        writer.text
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn payload(&mut self, before: &str, value: Option<&ComponentValType>) {
        if let Some(value) = value {
            self.push(before);
            self.value(value);
        }
    }

    fn value(&mut self, value: &ComponentValType) {
        // Types are trees written as graphs: small in the binary, without end as text.
        if self.text.len() > TEXT_BYTES_MAX {
            return;
        }
        match value {
            // Writing to a string cannot fail.
            ComponentValType::Primitive(primitive) => drop(write!(self.text, "{primitive}")),
            ComponentValType::Type(id) => {
                let types = self.types;
                self.defined(&types[*id]);
            }
        }
    }

    fn defined(&mut self, defined: &ComponentDefinedType) {
        match defined {
            // Writing to a string cannot fail.
            ComponentDefinedType::Primitive(primitive) => drop(write!(self.text, "{primitive}")),
            ComponentDefinedType::Record(record) => {
                let fields = record.fields.iter().map(|(name, value)| (name.as_str(), Some(value)));
                self.named("record", fields);
            }
            ComponentDefinedType::Variant(variant) => {
                let cases = variant.cases.iter().map(|(name, case)| (name.as_str(), case.ty.as_ref()));
                self.named("variant", cases);
            }
            ComponentDefinedType::Flags(names) => self.named("flags", names.iter().map(|name| (name.as_str(), None))),
            ComponentDefinedType::Enum(names) => self.named("enum", names.iter().map(|name| (name.as_str(), None))),
            ComponentDefinedType::List { element, .. } => self.of("list", [Some(element)]),
            ComponentDefinedType::Option { ty, .. } => self.of("option", [Some(ty)]),
            ComponentDefinedType::Result { ok, err, .. } => self.of("result", [ok.as_ref(), err.as_ref()]),
            ComponentDefinedType::Tuple(tuple) => self.of("tuple", tuple.types.iter().map(Some)),
            ComponentDefinedType::Own(id) => self.handle("own", id),
            ComponentDefinedType::Borrow(id) => self.handle("borrow", id),
            // None of them occurs in our package, so that a component which uses one differs.
            ComponentDefinedType::Map { .. }
            | ComponentDefinedType::FixedLengthList { .. }
            | ComponentDefinedType::Future { .. }
            | ComponentDefinedType::Stream { .. } => self.push("another kind of type"),
        }
    }

    fn named<'b>(&mut self, kind: &str, parts: impl Iterator<Item = (&'b str, Option<&'b ComponentValType>)>) {
        self.push(kind);
        self.push(" { ");
        for (name, value) in parts {
            self.push(name);
            self.payload(": ", value);
            self.push(", ");
        }
        self.push("}");
    }

    fn of<'b>(&mut self, kind: &str, parts: impl IntoIterator<Item = Option<&'b ComponentValType>>) {
        self.push(kind);
        self.push("<");
        for value in parts {
            match value {
                Some(value) => self.value(value),
                None => self.push("_"),
            }
            self.push(", ");
        }
        self.push(">");
    }

    fn handle(&mut self, kind: &str, id: &AliasableResourceId) {
        let name = self.resources.get(&id.resource()).map_or("a resource of another interface", String::as_str);
        self.push(kind);
        self.push("<");
        self.push(name);
        self.push(">");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_read_from_the_bindings() {
        let imports: Vec<&str> = PACKAGE.imports.keys().map(String::as_str).collect();
        assert_eq!(
            imports,
            [
                "flowstone:asset/config",
                "flowstone:asset/context",
                "flowstone:asset/files",
                "flowstone:asset/http",
                "flowstone:asset/inputs",
                "flowstone:asset/key-value",
                "flowstone:asset/log",
                "flowstone:asset/output",
                "flowstone:asset/secrets",
                "flowstone:asset/sql",
                "flowstone:asset/types",
            ]
        );
        let exports: Vec<&str> = PACKAGE.exports.keys().map(String::as_str).collect();
        assert_eq!(exports, ["flowstone:asset/definitions", "flowstone:asset/materializer"]);
        let error =
            "variant { denied, not-found, conflict, limit-reached: string, invalid: string, unavailable: string, }";
        assert_eq!(
            PACKAGE.imports["flowstone:asset/inputs"]["[method]reader.read"],
            format!("(self: borrow<reader>, max: u32, ) -> result<list<u8, >, {error}, >")
        );
        assert_eq!(
            PACKAGE.imports["flowstone:asset/files"]["open"],
            format!("(resource-name: string, ) -> result<own<directory>, {error}, >")
        );
    }
}
