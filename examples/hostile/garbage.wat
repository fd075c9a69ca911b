;; A component whose `describe` answers with a list of four thousand million assets that lies outside its memory.
;;
;; It has a manifest of its own, garbage.toml, because a deploy with it is refused as a whole.
(module
  (memory (export "memory") 1)

  (func (export "flowstone:asset/definitions@0.1.0#describe") (result i32)
    (i32.const 16))
  (data (i32.const 16) "\f0\ff\ff\ff" "\ff\ff\ff\ff")

  (func (export "flowstone:asset/materializer@0.1.0#materialize") (param i32 i32) (result i32)
    (unreachable))

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (i32.const 0x200)))
