//! The Rust side of the WIT package: the only `bindgen!`s of the host.
//!
//! Only what the macro makes is here. Which of it is linked, and with what behind it, is decided in
//! [`crate::engine`]; the behaviour is in [`crate::capability`]. Host functions are synchronous where they only wait for
//! this machine: they run on the guest's thread, which may block. Those that may wait for the network are not, and leave
//! the thread to other guests meanwhile.

#![expect(missing_docs, reason = "generated; the documentation is in wit/")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "flowstone:asset/everything",
    imports: {
        "flowstone:asset/inputs.[method]reader.read": async | trappable,
        "flowstone:asset/http.[method]client.send": async | trappable,
        "flowstone:asset/http.[method]response.read": async | trappable,
        "flowstone:asset/sql": async | trappable,
        "flowstone:asset/key-value": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    trappable_error_type: {
        "flowstone:asset/types.capability-error" => crate::capability::Refusal,
    },
    include_component_type: true,
});

/// Both drafts of `wasi:keyvalue` that toolchains emit. Not a part of our package: a draft matches only exactly, and no
/// component has to import any of it.
pub mod wasi_keyvalue {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package flowstone:drafts;
            world key-value {
                include wasi:keyvalue/imports@0.2.0-draft;
                include wasi:keyvalue/imports@0.2.0-draft2;
            }
        ",
        world: "flowstone:drafts/key-value",
        imports: { default: async | trappable },
        trappable_error_type: {
            "wasi:keyvalue/store@0.2.0-draft.error" => crate::capability::Refusal,
            "wasi:keyvalue/store@0.2.0-draft2.error" => crate::capability::Refusal,
        },
        with: {
            "wasi:keyvalue/atomics@0.2.0-draft2.cas": crate::capability::key_value::Comparison,
        },
    });
}
