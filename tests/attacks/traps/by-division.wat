;; Divides the smallest number by minus one.
;; expect: trapped
;; says: overflow

(func $materialize (param $asset i32) (param $length i32) (result i32)
  (drop (i32.div_s (i32.const 0x80000000) (i32.load (i32.const 4096))))
  (i32.const 1024))
(data (i32.const 4096) "\ff\ff\ff\ff")
