;; Returns a result that is outside its memory.
;; expect: trapped
;; says: out of bounds

(func $materialize (param $asset i32) (param $length i32) (result i32)
  (i32.const 0x7ffffff8))
