;; Gives the host room that is outside its memory.
;; expect: trapped
;; says: realloc return: beyond end of memory

(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0xfffffff0))
