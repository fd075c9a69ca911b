;; Loops for ever in `cabi_realloc`, where the host asks for room for an argument.
;; expect: out-of-fuel
;; limits: fuel=20M

(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
  (loop $again (br $again)) unreachable)
