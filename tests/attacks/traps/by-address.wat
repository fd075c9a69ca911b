;; Reads where there is no memory.
;; expect: trapped
;; says: out of bounds

(func $materialize (param $asset i32) (param $length i32) (result i32)
  (drop (i64.load offset=0xffffffff (i32.const 0xffffffff)))
  (i32.const 1024))
