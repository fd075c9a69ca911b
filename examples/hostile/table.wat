;; The asset `grows_tables`: adds a thousand elements to its table for as long as it may, and then traps.
;;
;; The layouts are those of the canonical ABI for the records of flowstone:asset/definitions.
(module
  (memory (export "memory") 1)
  (table $table 0 funcref)

  ;; describe() -> list<asset>: the address and the length of the list, at 16.
  (func (export "flowstone:asset/definitions@0.1.0#describe") (result i32)
    (i32.const 16))
  (data (i32.const 16) "\20\00\00\00" "\01\00\00\00")
  ;; One asset, at 32: its texts are addresses and lengths, its lists are empty.
  (data (i32.const 32)
    "\00\01\00\00" "\0c\00\00\00"  ;; name
    "\10\01\00\00" "\18\00\00\00"  ;; description
    "\00\00\00\00"                 ;; kind: plain
    "\00\00\00\00" "\00\00\00\00"  ;; inputs
    "\00\00\00\00" "\00\00\00\00"  ;; dimensions
    "\00\00\00\00" "\00\00\00\00"  ;; requirements
    "\30\01\00\00" "\0a\00\00\00"  ;; media-type
    "\00\00\00\00" "\00\00\00\00"  ;; checks
    "\00\00\00\00" "\00\00\00\00") ;; tags
  (data (i32.const 0x100) "grows_tables")
  (data (i32.const 0x110) "Grows its table forever.")
  (data (i32.const 0x130) "text/plain")

  (func (export "flowstone:asset/materializer@0.1.0#materialize") (param i32 i32) (result i32)
    (loop $again
      (br_if $again (i32.ne (i32.const -1) (table.grow $table (ref.null func) (i32.const 1000)))))
    (unreachable))

  ;; The host asks for room once, for the asset's name.
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (i32.const 0x200)))
